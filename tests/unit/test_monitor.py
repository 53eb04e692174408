"""The monitor: joined batches, first and best records, verdicts over a run, restoring, no trace left."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from openjepa.core.batch import Batch
from openjepa.core.errors import UserError
from openjepa.core.method import Inspection, Latents, Method, StepOutput
from openjepa.core.progress import Progress
from openjepa.core.seeding import generator_for
from openjepa.health.metrics import HealthSample, health
from openjepa.health.monitor import COLLAPSED_SCORE, HealthMonitor, enough_batches, join

D = 16


@dataclass(kw_only=True)
class Points(Batch):
    x: Tensor  # [B, D]


def points(size: int, draw: int) -> Points:
    return Points(keys=torch.arange(size), x=torch.randn(size, D, generator=generator_for(0, "test", draw)))


class Net(Method[Points]):
    """Predicts its input up to noise of a given size; `gain` shrinks or kills everything."""

    def __init__(self) -> None:
        super().__init__()
        self.noise, self.gain, self.offset = 1.0, 1.0, 0.0
        self.drop = nn.Dropout(0.5)
        self.seen: list[bool] = []

    def forward(self, batch: Points) -> StepOutput:
        self.note()
        target = self.embed(batch)
        predicted = target + self.noise * torch.randn(batch.x.shape)
        return StepOutput({"prediction": (predicted - target).square().mean()}, Latents(predicted, target))

    def note(self) -> None:
        """Keeps whether this call could train anything."""
        self.seen.append(self.training or torch.is_grad_enabled())

    def embed(self, batch: Points) -> Tensor:
        self.note()
        return self.drop(self.gain * batch.x + self.offset)

    predict_from_context = embed

    def inspect(self, batch: Points) -> Inspection:
        self.note()
        return Inspection(rows=torch.arange(batch.size))


def monitor(**kwargs) -> HealthMonitor:
    return HealthMonitor((points(size, draw) for draw, size in enumerate((40, 24))), **kwargs)


def check(watch: HealthMonitor, net: Net, step: int) -> dict:
    return watch.check(net, Progress(step, 100))


def test_joined_batches_are_one_batch() -> None:
    x = torch.randn(10, 3, generator=generator_for(0, "test"))
    whole = HealthSample(x, 2 * x, x, torch.arange(10), torch.arange(10) % 2, x, x)
    parts = [
        HealthSample(x[a:b], 2 * x[a:b], x[a:b], torch.arange(b - a), torch.arange(a, b) % 2, x[a:b], x[a:b])
        for a, b in ((0, 4), (4, 10))
    ]
    joined = join(parts)
    assert all(torch.equal(getattr(joined, name), getattr(whole, name)) for name in vars(whole))
    parts[1].teacher = None
    assert join(parts).teacher is None


def test_row_numbers_are_shifted_by_batch_size_not_by_the_last_row_seen() -> None:
    x, five = torch.zeros(2, 3), torch.zeros(5, 3)
    parts = [HealthSample(x, x, five, torch.tensor(rows)) for rows in ([0, 2], [1, 1])]
    rows = join(parts).rows
    assert rows is not None
    assert rows.tolist() == [0, 2, 6, 6]


def test_a_record_holds_metrics_losses_and_the_verdict_and_is_json() -> None:
    written: list[dict] = []
    watch, net = monitor(write=written.append), Net()
    record = check(watch, net, 0)
    assert written == [record]
    assert record == json.loads(json.dumps(record, allow_nan=False))
    assert record["status"] == "healthy"
    assert record["step"] == 0
    assert record["samples"] == 64
    assert record["loss"] == pytest.approx(1, abs=0.2)
    assert record["loss_prediction"] == record["loss"]
    assert record["skill"] == pytest.approx(0, abs=0.2)


def test_checks_run_in_eval_mode_without_gradient_repeat_exactly_and_leave_no_trace() -> None:
    watch, net = monitor(), Net()
    net.train()
    random = torch.random.get_rng_state()
    first, second = check(watch, net, 0), check(monitor(), net, 0)
    assert first == second
    assert not any(net.seen)
    assert net.training
    assert net.drop.training
    assert torch.equal(torch.random.get_rng_state(), random)


def test_first_and_best_are_kept_and_a_collapse_is_never_best() -> None:
    watch, net = monitor(), Net()
    start = check(watch, net, 0)
    net.noise = 0.2
    good = check(watch, net, 40)
    net.noise = 0.5
    worse = check(watch, net, 60)
    net.gain, net.offset, net.noise = 1e-4, 1.0, 0.0
    dead = check(watch, net, 80)
    assert watch.first == start
    assert watch.best == good
    assert (good["best"], worse["best"], dead["best"]) == (True, False, False)
    assert good["score"] > worse["score"] > dead["score"] == COLLAPSED_SCORE
    assert (dead["status"], dead["kind"]) == ("collapsed", "complete")


def test_scale_is_judged_against_the_first_record_of_the_run() -> None:
    watch, net = monitor(), Net()
    net.noise = 0.3
    check(watch, net, 0)
    net.gain, net.noise = 0.05, 0.01
    assert check(watch, net, 50)["kind"] == "scale"
    assert check(monitor(), net, 50)["status"] == "healthy"  # without that record nothing is wrong


def test_a_restored_monitor_goes_on_as_if_never_stopped() -> None:
    written: list[dict] = []
    watch, net = monitor(write=written.append), Net()
    for step, noise in ((0, 1.0), (20, 0.2), (40, 0.6), (60, 0.1)):
        net.noise = noise
        check(watch, net, step)
    lines = [json.loads(json.dumps(row)) for row in written]
    other = monitor()
    other.restore(lines[:3])
    assert (other.first, other.best) == (written[0], written[1])
    assert check(other, net, 60) == written[3]
    other.restore([])
    assert other.first is None
    assert other.best is None


def test_nan_latents_are_a_collapse_and_the_record_stays_json() -> None:
    net = Net()
    net.offset = math.nan
    record = check(monitor(), net, 0)
    assert (record["status"], record["kind"], record["score"]) == ("collapsed", "non-finite", COLLAPSED_SCORE)
    assert "skill" not in record
    json.dumps(record, allow_nan=False)


def test_metrics_are_those_of_all_batches_together() -> None:
    watch, net = monitor(), Net()
    net.noise = 0.0
    x = torch.cat([points(size, draw).x for draw, size in enumerate((40, 24))])
    assert check(watch, net, 0)["rank"] == pytest.approx(health(HealthSample(x, x, x))["rank"], rel=1e-6)


def test_no_held_out_batch_is_the_users_problem() -> None:
    with pytest.raises(UserError, match="eval split is empty"):
        HealthMonitor([])


@pytest.mark.parametrize(
    ("size", "samples", "batches"), [(1, 40, 40), (16, 40, 3), (64, 40, 1), (16, 1, 1), (4, 10_000, 50)]
)
def test_batches_are_filled_up_to_the_samples_whatever_their_size(size: int, samples: int, batches: int) -> None:
    assert len(enough_batches((points(size, draw) for draw in range(50)), samples)) == batches


def test_many_batches_of_one_are_judged_together_as_one_batch_is() -> None:
    x = points(64, 0).x
    ones = [Points(keys=torch.tensor([i]), x=x[i : i + 1]) for i in range(64)]
    net = Net()
    net.noise = 0.0
    single, whole = HealthMonitor(ones), HealthMonitor([Points(keys=torch.arange(64), x=x)])
    first, second = check(single, net, 0), check(whole, net, 0)
    assert (first["status"], first["samples"]) == ("healthy", 64)
    for name in ("rank", "spread", "mean_cosine", "skill"):
        assert first[name] == pytest.approx(second[name], rel=1e-5), name


def test_too_few_samples_are_not_judged_and_no_best_health() -> None:
    settings = {"train.health_samples": 256, "data.eval_fraction": 0.05, "train.lr": 1e-3}
    watch, net = HealthMonitor([points(1, 0)], settings=settings), Net()
    record = check(watch, net, 0)
    assert (record["status"], record["kind"], record["score"], record["advice"]) == ("not judged", None, 0.0, "")
    assert record["evidence"].startswith("1 of the 32 held-out samples that a verdict needs: raise")
