"""The engine's options on a CUDA device: the same sums, the same bound, the same release."""

from __future__ import annotations

import pytest
import torch

from privfair.accounting import Ledger
from privfair.training import (
    AdaptiveClipping,
    BandedNoise,
    Checkpoints,
    DPEngine,
    LogisticLoss,
    PerLayerClipping,
    SoftmaxLoss,
    TrainingPlan,
    make_optimizer,
)
from privfair.training._clipping import GUARD

from .helpers import mlp

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

PLAN = TrainingPlan(50, 25, 10, 0.7, 1.0)
OPTIONS = {
    "automatic": {"clipping": "automatic"},
    "per layer": {"clipping": "per_layer"},
    "adaptive": {
        "clipping": AdaptiveClipping(count_noise=3.0),
        "plan": AdaptiveClipping(count_noise=3.0).plan(PLAN, 1.0),
    },
    "pieces": {"max_physical_batch": 7},
    "correlated": {
        "plan": TrainingPlan(50, 10, 10, 0.7, 1.0, correlation=BandedNoise.square_root(4))
    },
    "moving average": {"ema_decay": 0.9},
}


def trained(device, batch, optimizer="sgd", plan=PLAN, checkpoints=None, **options):
    module = mlp(5, 4, 1).to(device)
    DPEngine(
        module, LogisticLoss(), plan, optimizer=make_optimizer(optimizer, 0.1),
        noise_random_state=3, **options,
    ).run(batch[0].to(device), batch[1].to(device), checkpoints=checkpoints)  # fmt: skip
    return torch.cat([p.detach().flatten() for p in module.parameters()]).cpu()


@pytest.mark.parametrize("name", OPTIONS)
def test_cuda_agrees_with_the_cpu(name, batch):
    seen = [trained(device, batch, **OPTIONS[name]) for device in ("cpu", "cuda")]
    torch.testing.assert_close(*seen, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("path", ["closed_form", "functional"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("grouped", [False, True])
def test_cuda_keeps_the_bound(path, precision, grouped, batch):
    clipping = PerLayerClipping() if grouped else "flat"
    engine = DPEngine(
        mlp(5, 4, 3).cuda(), SoftmaxLoss(3), PLAN, optimizer=make_optimizer("sgd", 0.1),
        clipping=clipping, precision=precision, grad_path=path,
    )  # fmt: skip
    X, y = batch[0].cuda() * torch.logspace(-3, 5, 50, device="cuda")[:, None], batch[2].cuda()
    assert GUARD > 0
    for row in range(50):
        total = engine._sums(X, y, None, None, torch.tensor([row], device="cuda")).total
        assert total.dtype == torch.float64 and torch.isfinite(total).all()
        assert total.norm().item() <= PLAN.max_grad_norm


def test_a_run_begun_on_the_cpu_goes_on_on_cuda(batch, tmp_path):
    ledger = Ledger()

    class Stop(Exception):
        pass

    checkpoints = Checkpoints(tmp_path / "run", ledger=ledger, every=5)
    after = checkpoints.after

    def stop(done):
        after(done)
        if done == 5:
            raise Stop

    checkpoints.after = stop
    with pytest.raises(Stop):
        trained("cpu", batch, optimizer="adam", checkpoints=checkpoints)
    checkpoints = Checkpoints(tmp_path / "run", ledger=ledger, every=5)
    found = trained("cuda", batch, optimizer="adam", checkpoints=checkpoints)
    torch.testing.assert_close(
        found, trained("cpu", batch, optimizer="adam"), rtol=1e-3, atol=1e-4
    )
    assert checkpoints.redone == 0 and len(ledger) == 1
