"""The memos of one user, as bytes: what must never be lost, mixed up or drawn again unnoticed."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core.exceptions import DataError, DataIntegrityError
from privfair.core.randomness import SecretStream
from privfair.ldp._longitudinal import LongitudinalProtocol, Public

__all__ = ["Drawer", "MemoBook", "StoreReceipt"]

MAGIC = b"PFLM"
VERSION = 1
_HEAD = struct.Struct("<4sHHI")
_DIGEST = 16


@dataclass(frozen=True)
class StoreReceipt:
    """What a memo store was when it was last written; kept elsewhere, it shows a loss.

    Parameters
    ----------
    store_id : str
        32 hexadecimal digits, drawn with the store.
    generation : int
        Number of changes of the store.
    resets : int
        How often memos were lost and drawn again.
    spent : dict of str to float
        Epsilon of all memos ever drawn, per attribute.

    Notes
    -----
    It has no memo and no value, but how many different values there were: keep it as private as
    that.

    Examples
    --------
    >>> receipt = StoreReceipt("0" * 32, 3, 0, {"": 2.0})
    >>> StoreReceipt.from_dict(receipt.to_dict()) == receipt
    True
    """

    store_id: str
    generation: int
    resets: int
    spent: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "store_id": self.store_id, "generation": self.generation, "resets": self.resets,
            "spent": dict(self.spent),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> StoreReceipt:
        """Read what :meth:`to_dict` gave.

        Raises
        ------
        DataIntegrityError
            It is something else.
        """
        try:
            spent = {str(name): float(x) for name, x in data["spent"].items()}
            out = cls(str(data["store_id"]), _count(data["generation"]), _count(data["resets"]),
                      spent)  # fmt: skip
            if len(bytes.fromhex(out.store_id)) != 16 or not all(x >= 0 for x in spent.values()):
                raise ValueError
        except (KeyError, TypeError, ValueError, AttributeError):
            raise DataIntegrityError("this is no receipt of a memo store.") from None
        return out


def _count(raw: Any) -> int:
    if isinstance(raw, bool) or not isinstance(raw, int) or raw < 0:
        raise ValueError
    return raw


@dataclass
class Drawer:
    """The memos of one attribute."""

    protocol: LongitudinalProtocol
    public: Public
    lost: float = 0.0  # epsilon of memos of earlier stores
    memos: dict[int, NDArray[Any]] = field(default_factory=dict)

    @property
    def spent(self) -> float:
        """Epsilon of all memos ever drawn."""
        return self.lost + len(self.memos) * self.protocol.eps_perm

    def rows(self, n: int) -> Public:
        """Return what the user shows the server, once per report."""
        return {name: np.repeat(a, n, axis=0) for name, a in self.public.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "fingerprint": self.protocol.fingerprint().hex(),
            "lost": self.lost.hex(),
            "spent": self.spent.hex(),
            "public": {name: _hex(a) for name, a in self.public.items()},
            "memos": {str(key): _hex(a) for key, a in sorted(self.memos.items())},
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any], protocol: LongitudinalProtocol) -> Drawer:
        """Read what :meth:`to_dict` gave; what the protocol never draws is an error."""
        out = cls(protocol, protocol._draw_public(0, _Nothing()), float.fromhex(data["lost"]))  # type: ignore[arg-type]
        if set(data["public"]) != set(out.public) or not 0 <= out.lost < float("inf"):
            raise ValueError
        out.public = {name: _row(data["public"][name], a) for name, a in out.public.items()}
        protocol._check_public(out.public)
        like = protocol._draw_memos(np.zeros(0, dtype=np.int64), out.rows(0), _Nothing())  # type: ignore[arg-type]
        for text, memo in data["memos"].items():
            key = int(text)
            if not 0 <= key < protocol.max_memos or str(key) != text:
                raise ValueError
            row = _row(memo, like)
            protocol._check_memos(row)
            out.memos[key] = row
        return out


class _Nothing(SecretStream):
    """Draws nothing: to learn the arrays of a protocol."""

    def __init__(self) -> None:
        super().__init__(0)

    def uint64(self, size: int | tuple[int, ...]) -> NDArray[np.uint64]:
        return np.zeros(size, dtype=np.uint64)

    def bytes(self, n: int) -> bytes:
        return bytes(n)


def _hex(array: NDArray[Any]) -> str:
    return array.astype(array.dtype.newbyteorder("<")).tobytes().hex()


def _row(text: str, like: NDArray[Any]) -> NDArray[Any]:
    """Return one row of the kind of an empty array."""
    flat = np.frombuffer(bytes.fromhex(text), dtype=like.dtype.newbyteorder("<"))
    return flat.astype(like.dtype).reshape((1, *like.shape[1:]))


@dataclass
class MemoBook:
    """All memos of one user, with the identity of the store and its history."""

    drawers: dict[str, Drawer]
    store_id: bytes
    generation: int = 0
    resets: int = 0
    seeded: bool = False

    @classmethod
    def fresh(
        cls,
        protocols: Mapping[str, LongitudinalProtocol],
        stream: SecretStream,
        before: StoreReceipt | None = None,
    ) -> MemoBook:
        """Return an empty book; ``before`` is the last that is known of one that was lost."""
        drawers = {
            name: Drawer(p, p._draw_public(1, stream), _lost(before, name))
            for name, p in protocols.items()
        }
        if before is not None:  # what was spent on attributes that are no longer collected
            gone = sum(x for name, x in before.spent.items() if name not in drawers)
            next(iter(drawers.values())).lost += gone
        return cls(
            drawers, stream.bytes(16), resets=0 if before is None else before.resets + 1,
            seeded=stream.seeded,
        )  # fmt: skip

    def receipt(self) -> StoreReceipt:
        """Return what shows a loss later."""
        spent = {name: d.spent for name, d in self.drawers.items()}
        return StoreReceipt(self.store_id.hex(), self.generation, self.resets, spent)

    def holds(self, data: bytes) -> bool:
        """Return whether all memos of a store are among these, and were drawn in the same way."""
        for name, theirs in _document(data)["attributes"].items():
            mine = self.drawers[name].to_dict() if name in self.drawers else None
            if mine is None or any(mine[key] != theirs[key] for key in ("fingerprint", "public")):
                return False
            if not theirs["memos"].items() <= mine["memos"].items():
                return False
        return True

    def to_bytes(self) -> bytes:
        """Return everything: little-endian head, JSON, a digest of both."""
        text = json.dumps(
            {
                "id": self.store_id.hex(), "generation": self.generation, "resets": self.resets,
                "seeded": self.seeded,
                "attributes": {name: d.to_dict() for name, d in self.drawers.items()},
            },
            sort_keys=True, separators=(",", ":"),
        ).encode()  # fmt: skip
        body = _HEAD.pack(MAGIC, VERSION, 0, len(text)) + text
        return body + blake2b(body, digest_size=_DIGEST).digest()

    @classmethod
    def from_bytes(
        cls,
        data: bytes,
        protocols: Mapping[str, LongitudinalProtocol],
        stream: SecretStream,
    ) -> MemoBook:
        """Read a book of these protocols; attributes that it lacks are begun."""
        document = _document(data)
        try:
            return cls._read(document, protocols, stream)
        except DataIntegrityError:
            raise
        except (DataError, KeyError, TypeError, ValueError, AttributeError):
            raise DataIntegrityError(
                "the memo store has contents that its protocol never draws."
            ) from None

    @classmethod
    def _read(
        cls,
        document: dict[str, Any],
        protocols: Mapping[str, LongitudinalProtocol],
        stream: SecretStream,
    ) -> MemoBook:
        stored = document["attributes"]
        if not set(stored) <= set(protocols):
            raise DataIntegrityError(
                "the memo store has attributes that are not among the protocols: leaving them "
                "out would lose their memos."
            )
        drawers = {}
        for name, protocol in protocols.items():
            if name not in stored:
                drawers[name] = Drawer(protocol, protocol._draw_public(1, stream))
                continue
            if stored[name]["fingerprint"] != protocol.fingerprint().hex():
                raise DataIntegrityError(
                    f"the memos were drawn with other parameters than {protocol!r}: reports from "
                    "them would not keep its epsilon. Use the protocol that they were drawn with, "
                    "or reset=True, which counts them as spent and draws new ones."
                )
            drawers[name] = Drawer.from_dict(stored[name], protocol)
        store_id = bytes.fromhex(document["id"])
        if len(store_id) != 16 or not isinstance(document["seeded"], bool):
            raise ValueError
        return cls(
            drawers, store_id, _count(document["generation"]), _count(document["resets"]),
            document["seeded"] or stream.seeded,
        )  # fmt: skip


def _lost(before: StoreReceipt | None, name: str) -> float:
    return 0.0 if before is None else before.spent.get(name, 0.0)


def _document(data: bytes) -> dict[str, Any]:
    if len(data) < _HEAD.size + _DIGEST or data[:4] != MAGIC:
        raise DataIntegrityError("these bytes are no memo store, or were cut.")
    _, version, flags, size = _HEAD.unpack_from(data)
    if version != VERSION or flags:
        raise DataIntegrityError(f"version {version} of the memo store is unknown.")
    if len(data) != _HEAD.size + size + _DIGEST:
        raise DataIntegrityError("the memo store has another length than it says: it was cut.")
    body = data[:-_DIGEST]
    if blake2b(body, digest_size=_DIGEST).digest() != data[-_DIGEST:]:
        raise DataIntegrityError("the memo store was changed or damaged.")
    try:
        document = json.loads(body[_HEAD.size :])
    except (ValueError, RecursionError):
        raise DataIntegrityError("the memo store is not readable.") from None
    if not isinstance(document, dict) or not isinstance(document.get("attributes"), dict):
        raise DataIntegrityError("the memo store has other contents than it should.")
    return document


def receipt_of(data: bytes) -> StoreReceipt:
    """Return the receipt of a store without knowing its protocols."""
    document = _document(data)
    try:
        spent = {n: float.fromhex(d["spent"]) for n, d in document["attributes"].items()}
        return StoreReceipt.from_dict({
            "store_id": document["id"], "generation": document["generation"],
            "resets": document["resets"], "spent": spent,
        })  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError):
        raise DataIntegrityError("the memo store has other contents than it should.") from None
