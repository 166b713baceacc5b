"""Trainers and loggers of other packages, each in a small real training."""

import json
import sqlite3

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from chainrule.errors import TrainingStopped, WatchError
from chainrule.watch import integrations, watch
from chainrule.watch.reading import RunReader

pytestmark = pytest.mark.filterwarnings("default")  # those of other packages are not ours to mend


def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


def make_data(count=48):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 4, generator=generator)
    return TensorDataset(x, x[:, :3].argmax(1))


def train(model, sinks, steps=12, bad=None, **settings):
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    x, y = make_data().tensors
    with watch(model, optimizer, sinks=sinks, every=5, **settings) as run:
        for step in range(1, steps + 1):
            loss = F.cross_entropy(model(x), y)
            if step == bad:
                loss = loss * torch.nan
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.log(loss=loss, accuracy=0.5)
    return run


def train_plainly(batches, accumulate=1, rate=0.1):
    """Return losses per step, norms per step and weights of the plain loop."""
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), rate)
    losses, norms, open_losses = [], [], []
    for number, (x, y) in enumerate(batches, 1):
        loss = F.cross_entropy(model(x), y)
        open_losses.append(loss.item())
        (loss / accumulate).backward()
        if number % accumulate == 0:
            grads = [each.grad.flatten().double() for each in model.parameters()]
            norms.append(float(torch.cat(grads).norm()))
            optimizer.step()
            optimizer.zero_grad()
            losses.append(sum(open_losses) / len(open_losses))
            open_losses = []
    return losses, norms, model


def check_equal(run, wanted):
    losses, norms, model = wanted
    assert [step.loss for step in run.steps] == pytest.approx(losses, rel=1e-4)
    assert [step.total_norm for step in run.steps] == pytest.approx(norms, rel=1e-4)
    assert run.samples
    assert all(sample.layers for sample in run.samples)
    return model


# --- Lightning ------------------------------------------------------------------------------------


def fit(callback, epochs=1, *, bad=False, **settings):
    lightning = pytest.importorskip("lightning.pytorch")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = make()

        def training_step(self, batch, number):
            x, y = batch
            loss = F.cross_entropy(self.net(x), y)
            if bad and number == 3:
                raise RuntimeError("the user's own")
            return loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    module = Module()
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback],
        **settings,
    )
    trainer.fit(module, DataLoader(make_data(), batch_size=8))
    return trainer, module


@pytest.mark.parametrize("accumulate", [1, 2, 3])
def test_lightning_equals_the_plain_loop(tmp_path, accumulate):
    pytest.importorskip("lightning")
    callback = integrations.LightningWatch(store=tmp_path / "a.db", every=2)
    _, module = fit(callback, accumulate_grad_batches=accumulate)
    wanted = train_plainly(DataLoader(make_data(), batch_size=8), accumulate)
    model = check_equal(callback.run, wanted)
    for mine, other in zip(module.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(mine, other)
    assert callback.run.facts.model == "Module"
    assert len(RunReader(tmp_path / "a.db").steps()) == 6 // accumulate


def test_lightning_goes_on_and_closes_after_an_error(tmp_path):
    pytest.importorskip("lightning")
    callback = integrations.LightningWatch(store=tmp_path / "a.db", every=2)
    trainer, module = fit(callback)
    trainer.fit_loop.max_epochs = 2
    trainer.fit(module, DataLoader(make_data(), batch_size=8))
    assert [step.step for step in RunReader(tmp_path / "a.db").steps()] == list(range(1, 13))
    callback = integrations.LightningWatch(store=tmp_path / "b.db")
    with pytest.raises(RuntimeError, match="the user's own"):
        fit(callback, bad=True)
    reader = RunReader(tmp_path / "b.db")
    assert (reader.live, len(reader.steps())) == (False, 3)


# --- The Trainer of transformers ------------------------------------------------------------------


def make_trainer(folder, callback, **settings):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = make()

        def forward(self, x, labels):
            out = self.net(x)
            return {"loss": F.cross_entropy(out, labels), "logits": out}

    rows = [{"x": x, "labels": y} for x, y in make_data()]
    settings = {
        "num_train_epochs": 1,
        "per_device_train_batch_size": 8,
        "logging_steps": 1,
        "lr_scheduler_type": "constant",
        "learning_rate": 0.1,
        "optim": "sgd",
        "max_grad_norm": 0,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "save_strategy": "no",
        "train_sampling_strategy": "sequential",
    } | settings
    return transformers.Trainer(
        model=Model(),
        args=transformers.TrainingArguments(output_dir=str(folder), **settings),
        train_dataset=rows,
        callbacks=[callback],
    )


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_trainer_equals_the_plain_loop(tmp_path, accumulate):
    callback = pytest.importorskip("transformers") and integrations.TrainerWatch(every=2)
    trainer = make_trainer(tmp_path, callback, gradient_accumulation_steps=accumulate)
    trainer.train()
    wanted = train_plainly(DataLoader(make_data(), batch_size=8), accumulate)
    model = check_equal(callback.run, wanted)
    for mine, other in zip(trainer.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(mine.cpu(), other)


def test_the_trainer_goes_on_from_a_checkpoint(tmp_path):
    pytest.importorskip("transformers")
    store = tmp_path / "a.db"
    first = integrations.TrainerWatch(store=store, every=2)
    make_trainer(tmp_path, first, max_steps=4, save_strategy="steps", save_steps=2).train()
    assert RunReader(store).steps()[-1].step == 4
    second = integrations.TrainerWatch(store=store, every=2)
    trainer = make_trainer(tmp_path, second, max_steps=6)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert [step.step for step in RunReader(store).steps()] == [1, 2, 3, 4, 5, 6]


def test_the_trainer_stops_at_an_alarm(tmp_path):
    pytest.importorskip("transformers")
    callback = integrations.TrainerWatch(raise_on=["non_finite"])
    trainer = make_trainer(tmp_path, callback)
    with torch.no_grad():
        trainer.model.net[0].weight[0, 0] = torch.inf
    with pytest.raises(TrainingStopped, match="non_finite"):
        trainer.train()


# --- Accelerate -----------------------------------------------------------------------------------


def test_accelerate_equals_the_plain_loop(tmp_path):
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = make()
    loader = DataLoader(make_data(), batch_size=8)
    model, optimizer, loader = accelerator.prepare(
        model, torch.optim.SGD(model.parameters(), 0.1), loader
    )
    run = integrations.watch_accelerator(
        accelerator, model, optimizer, store=tmp_path / "a.db", every=2
    )
    for x, y in loader:
        with accelerator.accumulate(model):
            loss = F.cross_entropy(model(x), y)
            accelerator.log({"loss": loss.item(), "note": "text"})
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
    accelerator.end_training()
    check_equal(run, train_plainly(DataLoader(make_data(), batch_size=8), 2))
    assert not RunReader(tmp_path / "a.db").live


# --- Sinks ----------------------------------------------------------------------------------------


def test_tensorboard_has_the_numbers_and_the_alarm(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = train(make(), [integrations.TensorBoardSink(tmp_path)], bad=11)
    read = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0})
    read.Reload()

    def values(name):
        from tensorboard.util.tensor_util import make_ndarray

        return {each.step: make_ndarray(each.tensor_proto).item() for each in read.Tensors(name)}

    losses = {step.step: step.loss for step in run.steps}
    assert values("chainrule/loss") == pytest.approx(losses, nan_ok=True, rel=1e-5)
    assert set(values("chainrule/gradient/0.weight")) == {1, 5, 10}
    ratios = {each.step: each.ratios[2] for each in run.samples}
    assert values("chainrule/update_ratio/2.weight") == pytest.approx(ratios, nan_ok=True, rel=1e-5)
    (alarm,) = [each for each in run.alarms if each.rule == "non_finite"]
    (tag,) = [
        tag for tag in read.Tags()["tensors"] if tag.startswith("chainrule/alarms/non_finite")
    ]
    assert alarm.summary.encode() in read.Tensors(tag)[0].tensor_proto.string_val[0]


def test_wandb_offline_has_one_row_per_step(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    logged = wandb.init(project="digits", mode="offline", dir=str(tmp_path))
    alerts = []
    original = logged.alert
    monkeypatch.setattr(logged, "alert", lambda *a: (alerts.append(a), original(*a)))
    run = train(make(), [integrations.WandbSink(logged)], bad=11)
    summary = dict(logged.summary)
    count = logged.step
    logged.finish()
    assert count == len(run.steps) == 12
    assert summary["chainrule/step"] == 12
    assert summary["chainrule/update_ratio/0.weight"] == pytest.approx(
        run.samples[-1].ratios[0], nan_ok=True
    )
    assert [title for title, _ in alerts] == [f"{a.kind}, step {a.step}" for a in run.alarms]
    assert list(tmp_path.rglob("*.wandb"))
    assert wandb.run is None
    with pytest.raises(WatchError, match="init"):
        integrations.WandbSink()


def test_mlflow_has_the_numbers_and_the_alarm(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    with pytest.raises(WatchError, match="start_run"):
        integrations.MlflowSink()
    with mlflow.start_run() as active:
        run = train(make(), [integrations.MlflowSink()], bad=11)
    client = mlflow.MlflowClient()
    history = client.get_metric_history(active.info.run_id, "chainrule/loss")
    assert {each.step: each.value for each in history} == pytest.approx(
        {step.step: step.loss for step in run.steps}, nan_ok=True
    )
    tags = client.get_run(active.info.run_id).data.tags
    for alarm in run.alarms:
        assert alarm.summary in tags[f"chainrule.alarm.{alarm.step}.{alarm.rule}"]


def test_trackio_has_the_numbers_and_the_alarm(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    trackio = pytest.importorskip("trackio")
    logged = trackio.init(project="digits", auto_log_gpu=False, embed=False)
    run = train(make(), [integrations.TrackioSink(logged)], bad=11)
    trackio.finish()
    (path,) = tmp_path.rglob("*.db")
    with sqlite3.connect(path) as file:
        rows = file.execute("select step, metrics from metrics order by step").fetchall()
        texts = [text for (text,) in file.execute("select text from alerts")]
    kept = [{"step": step, **json.loads(found)} for step, found in rows]
    losses = {each["step"]: each["chainrule/loss"] for each in kept if "chainrule/loss" in each}
    assert [losses[step] for step in range(1, 11)] == [step.loss for step in run.steps[:10]]
    ratios = [name for each in kept for name in each if name == "chainrule/update_ratio/0.bias"]
    assert len(ratios) == len(run.samples)
    assert len(texts) == len(run.alarms) > 0
