"""Runs that survive being killed, without a step that is free or charged twice for nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from privfair.core import _validation as check
from privfair.core.exceptions import (
    DataIntegrityError,
    InvalidParameterError,
    InvalidTypeError,
    OutputTargetError,
    SchemaVersionError,
)
from privfair.training._journal import Journal, sync_folder
from privfair.training._plan import TrainingPlan

__all__ = ["Checkpoints", "RunState"]

FORMAT = "privfair-checkpoint"
_VERSION = 1
_STATE, _JOURNAL, _LOCK = "state.safetensors", "journal.jsonl", "lock"


@dataclass
class RunState:
    """Everything of a run that a checkpoint holds; all of it is released or public.

    Attributes
    ----------
    theta : Tensor, shape (n_parameters,)
    optimizer, average, rule : object
        With ``state()`` and ``restore(state)``; the clipping rule may have a ``current``.
    seeded : bool
    unit : str or None
        Unit that the run protects; None leaves it to the ledger.
    """

    theta: Tensor
    optimizer: Any
    average: Any
    rule: Any
    seeded: bool
    unit: str | None = None

    def tensors_and_numbers(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the state as named tensors and named numbers."""
        tensors: dict[str, Tensor] = {"parameters": self.theta}
        numbers: dict[str, Any] = {}
        for part in ("optimizer", "average"):
            for name, value in getattr(self, part).state().items():
                here: dict[str, Any] = tensors if isinstance(value, Tensor) else numbers
                here[f"{part}.{name}"] = value
        if hasattr(self.rule, "current"):
            numbers["rule.current"] = self.rule.current
        return tensors, numbers

    def restore(self, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        """Take back what :meth:`tensors_and_numbers` returned."""
        with torch.no_grad():
            self.theta.copy_(tensors["parameters"])
        everything = {**tensors, **numbers}
        for part in ("optimizer", "average"):
            own = {
                name.removeprefix(f"{part}."): value
                for name, value in everything.items()
                if name.startswith(f"{part}.")
            }
            getattr(self, part).restore(own)
        if hasattr(self.rule, "current"):
            self.rule.current = float(numbers["rule.current"])


class Checkpoints:
    """A folder in which a run is saved as it goes, and from which it goes on.

    Pass it to :meth:`DPEngine.run`. In an empty folder the run begins, and the whole of it is
    charged to the ledger. In a folder of an unfinished run it goes on from the last checkpoint;
    steps that the killed process may have done after that checkpoint are done again under fresh
    noise, which is a second release of the same steps, so they are charged once more.

    Parameters
    ----------
    path : path-like
        Folder of this run alone; its parent must exist.
    ledger : Ledger or None
        Where the run is charged. None only for a run without privacy.
    every : int, default=100
        Steps from one checkpoint to the next.
    journal_every : int, default=10
        Steps that are announced in the journal at a time. An interruption costs at most
        ``every + journal_every`` steps.
    delta : float or None, default=None
        Delta at which a ``basic`` ledger values the charges.
    label : str, default="DPEngine"
        Of the ledger entries; must not hold data.

    Attributes
    ----------
    path : pathlib.Path
    entry_id : int or None
        Last ledger entry of the run, after it has begun.
    redone : int
        Steps that were charged again in all, after the run has begun.

    Raises
    ------
    OutputTargetError
        The parent folder does not exist, the path is a file, or another process uses the folder.
    InvalidParameterError
        The folder holds a run of another plan, model, optimiser or seed.
    DataIntegrityError
        The folder is not whole, or was altered.

    Notes
    -----
    *What is saved*: parameters, optimiser, average, the adaptive clipping bound, step, plan and
    ledger entry; safetensors with JSON, written to a new file and renamed. No state of noise or
    sampler, no seed, no record, no index. With ``noise_random_state`` the streams are drawn again
    up to the checkpoint, so that a resumed run equals an uninterrupted one.

    *Privacy.* Before steps are done, a line in the journal says so and is on the disk; a step is
    thus never done without being counted. On resuming from step s, the steps begun by all earlier
    attempts plus the ``steps - s`` that remain are compared with what was charged; the difference
    is charged before anything is drawn, as steps that release everything. Each attempt draws
    fresh batches and noise, and the number of steps done again may depend on anything: this is
    adaptive composition, which the ledger's filter covers. A folder that was copied is charged
    all remaining steps again, as the original may do them, too.

    *Cost.* One synced line every ``journal_every`` steps, one file of the size of parameters and
    optimiser every ``every`` steps.

    References
    ----------
    Rogers, Roth, Ullman, Vadhan, 2016, arXiv:1605.08294 (filters). ``docs/training.md``.

    Examples
    --------
    >>> import tempfile, torch
    >>> from privfair.accounting import Ledger
    >>> from privfair.training import DPEngine, LogisticLoss, TrainingPlan, make_optimizer
    >>> ledger = Ledger()
    >>> folder = Checkpoints(tempfile.mkdtemp() + "/run", ledger=ledger, every=20)
    >>> plan = TrainingPlan(100, 10, steps=50, max_grad_norm=1.0, noise_multiplier=2.0)
    >>> engine = DPEngine(torch.nn.Linear(3, 1), LogisticLoss(), plan,
    ...                   optimizer=make_optimizer("sgd", 0.1))
    >>> engine.run(torch.randn(100, 3), torch.ones(100), checkpoints=folder)
    >>> len(ledger), folder.redone
    (1, 0)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        ledger: Any,
        every: int = 100,
        journal_every: int = 10,
        delta: float | None = None,
        label: str = "DPEngine",
    ) -> None:
        self.path = Path(path)
        self.every = check.positive_int(every=every)
        self.journal_every = check.positive_int(journal_every=journal_every)
        if ledger is not None and not hasattr(ledger, "spend"):
            raise InvalidTypeError(f"ledger must be a Ledger, got {type(ledger).__name__}.")
        if not self.path.parent.is_dir() or self.path.is_file():
            raise OutputTargetError(
                f"{self.path} cannot be the folder of a run: its parent does not exist, or it is "
                "a file."
            )
        self._ledger, self._delta, self._label = ledger, delta, label
        self.entry_id: int | None = None
        self.redone = 0
        self._journal: Journal | None = None
        self._announced = 0
        self._saved = -1
        self._steps = 0

    @contextmanager
    def running(self, plan: TrainingPlan, run: RunState) -> Iterator[int]:
        """Restore the run, charge what it may release, and yield the first step to do."""
        if plan.private and self._ledger is None:
            raise InvalidParameterError(
                "a private run with checkpoints needs a ledger: an interruption makes it release "
                "some steps twice, and only a ledger can hold the charge for them."
            )
        for name in ("state", "restore"):
            if not hasattr(run.optimizer, name):
                raise InvalidParameterError(
                    f"the optimiser {type(run.optimizer).__name__} has no {name}(), so that its "
                    "state cannot be in a checkpoint."
                )
        self.path.mkdir(exist_ok=True)
        with ExitStack() as stack:
            stack.enter_context(_locked(self.path / _LOCK))
            journal = Journal(self.path / _JOURNAL)
            stack.callback(journal.close)
            first = self._restore(plan, run, journal)
            self._charge(plan, first, journal, run, stack)
            self._journal, self._announced, self._steps = journal, first, plan.steps
            self._plan, self._run = plan, run
            if first != self._saved:
                self._save(first)
            try:
                yield first
            finally:
                self._journal = None

    def before(self, step: int) -> None:
        """Announce ``step``, and some after it, unless it is announced already."""
        assert self._journal is not None
        if step >= self._announced:
            upto = min(step + self.journal_every, self._steps)
            # Not beyond the next checkpoint: what is behind one need not be announced.
            upto = min(upto, (step // self.every + 1) * self.every)
            self._journal.begin(step, upto)
            self._announced = upto

    def after(self, done: int) -> None:
        """Save the run, if ``done`` steps make it due."""
        if done % self.every == 0 or done == self._steps:
            self._save(done)

    # -- charging --------------------------------------------------------------------------
    def _charge(
        self, plan: TrainingPlan, first: int, journal: Journal, run: RunState, stack: ExitStack
    ) -> None:
        left = plan.steps - first
        if journal.plan is not None and journal.plan != _plain(asdict(plan)):
            raise InvalidParameterError(
                f"{self.path} holds a run of another plan. A run goes on only as it was planned "
                "and charged; begin a new one in an empty folder."
            )
        if plan.private and journal.entry is not None and not self._holds(journal.entry):
            paid = 0  # another ledger: it knows of no step at all
        elif journal.copied:
            paid = journal.begun  # what else was charged is the original's to use
        else:
            paid = journal.charged
        missing = journal.begun + left - paid
        if missing > 0:
            again = journal.charged > 0
            entry = self._spend(plan, missing, again, run, stack) if plan.private else None
            journal.charge(missing, entry, _plain(asdict(plan)), paid)
        self.entry_id = None if journal.entry is None else int(journal.entry[0])
        self.redone = journal.charged - plan.steps

    def _holds(self, entry: list[Any]) -> bool:
        return any([e.id, e.time] == entry for e in self._ledger.entries())

    def _spend(
        self, plan: TrainingPlan, steps: int, again: bool, run: RunState, stack: ExitStack
    ) -> list[Any]:
        whole = steps == plan.steps and not again
        transaction = stack.enter_context(
            self._ledger.spend(
                plan.event() if whole else plan.redone_event(steps),
                purpose="training steps done again" if again else "training",
                label=self._label,
                delta=self._delta,
                neighboring=plan.relation,
                null_ignored=True,
                numerics="hardened",
                seeded=run.seeded,
                unit=run.unit,
            )
        )
        number = int(transaction.entry_id)
        (time,) = (e.time for e in self._ledger.entries() if e.id == number)
        return [number, time]

    # -- files -----------------------------------------------------------------------------
    def _identity(self, plan: TrainingPlan, run: RunState) -> dict[str, Any]:
        return {
            "plan": asdict(plan),
            "parameters": run.theta.numel(),
            "optimizer": type(run.optimizer).__name__,
            "average": type(run.average).__name__,
            "clipping": type(run.rule).__name__,
            "seeded": run.seeded,
        }

    def _save(self, done: int) -> None:
        from safetensors.numpy import save as to_bytes

        assert self._journal is not None
        tensors, numbers = self._run.tensors_and_numbers()
        arrays = {n: np.ascontiguousarray(t.detach().cpu().numpy()) for n, t in tensors.items()}
        document = {
            "format": FORMAT,
            "schema": _VERSION,
            "step": done,
            "numbers": numbers,
            "ledger_entry_id": self.entry_id,
            **self._identity(self._plan, self._run),
        }
        data = to_bytes(arrays, metadata={"privfair": json.dumps(document, allow_nan=False)})
        _replace(self.path / _STATE, data)
        self._saved = done

    def _restore(self, plan: TrainingPlan, run: RunState, journal: Journal) -> int:
        path = self.path / _STATE
        if not path.exists():
            return 0  # steps that were begun before the first checkpoint are in the journal
        if not journal.charged:
            raise DataIntegrityError(
                f"{path} has no journal beside it, so that nobody knows what was charged for it. "
                "Begin a new run in an empty folder."
            )
        document, arrays = _read(path)
        wanted = _plain(self._identity(plan, run))
        for name, value in wanted.items():
            if document.get(name) != value:
                raise InvalidParameterError(
                    f"{self.path} holds a run with another {name}: {document.get(name)!r}, and "
                    f"not {value!r}. A run goes on only as it was planned and charged."
                )
        tensors = {name: torch.from_numpy(np.array(a)) for name, a in arrays.items()}
        tensors = {name: t.to(run.theta.device) for name, t in tensors.items()}
        run.restore(tensors, document["numbers"])
        self._saved = int(document["step"])
        return self._saved


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = json.loads(json.dumps(value))
    return out


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    from safetensors.numpy import load as from_bytes

    data = path.read_bytes()
    try:
        size = int.from_bytes(data[:8], "little")
        document = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["privfair"])
        arrays = from_bytes(data)
    except Exception as error:  # the library's own error class derives from Exception alone
        raise DataIntegrityError(f"{path} is not a checkpoint, or not a whole one.") from error
    if document.get("format") != FORMAT:
        raise DataIntegrityError(f"{path} is not a checkpoint of privfair.")
    if int(document["schema"]) > _VERSION:
        raise SchemaVersionError(
            f"{path} has version {document['schema']}; this privfair reads up to {_VERSION}."
        )
    return document, arrays


def _replace(path: Path, data: bytes) -> None:
    """Write a new file and rename it: a kill at any instant leaves the old one or the new one."""
    fresh = path.with_suffix(".new")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    fresh.replace(path)
    sync_folder(path.parent)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that ends with the process: two processes must not go on with one run."""
    try:
        import fcntl
    except ImportError as error:  # pragma: no cover
        raise OutputTargetError(
            "checkpoints need file locks that end with the process, which this system lacks."
        ) from error
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise OutputTargetError(
                f"{path.parent} is in use by another process: a run has one process at a time."
            ) from error
        yield
