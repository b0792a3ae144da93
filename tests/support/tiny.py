"""Tiny experiments that train in milliseconds: pictures of 3 x 3 pixels, narrow networks."""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from study import data, parts
from study.config import Diagnostics, TrialConfig
from study.contracts import (
    Boundary,
    Dataset,
    DirectModel,
    Experiment,
    Intervention,
    Learner,
    Model,
    Probes,
    Selective,
    Step,
)
from study.experiment import build, load_dataset
from study.gradients import MinibatchGradient
from study.lanes import Tensors
from study.training import checkpoint
from study.training.minibatches import Feed
from study.training.trainer import State, TaskResult, train

FEATURES = 9

CNN = {
    "images": {"shape": (2, 7, 6)},
    "model": "cnn",
    "model_settings": {"channels": [3, 4], "kernels": [3, 2], "pools": [2, 1], "widths": [5]},
}
"""Arguments of `experiment` for a convolutional network: colours, no squares, and rows that pooling leaves over."""

OPTIMIZERS = {
    "sgd": {},
    "sgd with momentum and weight decay": {"momentum": 0.9, "weight_decay": 0.01},
    "sam": {"rho": 0.1},
    "sam with momentum and weight decay": {"rho": 0.1, "momentum": 0.9, "weight_decay": 0.01},
    "gnp": {"lambda": 0.1, "r": 0.05},
    "gnp with momentum": {"lambda": 0.1, "r": 0.05, "momentum": 0.9},
    "gnp exact": {"lambda": 0.1, "r": 0.0},
    "adamw": {"lr": 0.01, "weight_decay": 0.1},
    "gnp on adamw over tasks": {
        "lambda": 0.1,
        "r": 0.05,
        "lr": 0.01,
        "base": "adamw",
        "schedule": "linear",
        "schedule_to": 0.5,
    },
    "asam within tasks": {"rho": -0.3, "schedule": "cosine", "schedule_over": "steps", "schedule_to": 2.0},
    "friendly_sam with momentum": {"rho": 0.1, "momentum": 0.9},
    "random_sam": {"rho": 0.5},
}
"""Settings of optimizers to test; the first word of a key is the optimizer's name."""

EVALUATIONS = {"sgd": 1, "adamw": 1, "random_sam": 3}
"""Gradients of a step of an optimizer by the first word of its name, if not 2."""


EAGER = {
    "redo": {"every": 2, "threshold": 0.5},
    "continual_backprop": {"rate": 0.3, "maturity": 1},
    "snr": {"first": 2, "shortest": 1, "longest": 3},
    "weight_clipping": {"kappa": 0.9},
    "weight_projection": {"every": 2},
    "shrink_and_perturb_per_step": {"noise": 0.01},
    "spectral_regularization": {"strength": 0.1},
}
"""Settings of interventions with which they act in the few steps of a tiny task."""


def dataset(
    classes: int = 4,
    train_per_class: int = 12,
    test_per_class: int = 6,
    seed: int = 0,
    shape: tuple[int, int, int] = (1, 3, 3),
) -> Dataset:
    """Noisy copies of one random picture per class, classes taking turns."""
    draw = torch.Generator().manual_seed(seed)
    features = math.prod(shape)
    prototypes = torch.randint(0, 180, (classes, features), generator=draw)

    def pictures(per_class: int) -> tuple[Tensor, Tensor]:
        labels = torch.arange(classes).repeat(per_class)
        noise = torch.randint(0, 76, (len(labels), features), generator=draw)
        return (prototypes[labels] + noise).to(torch.uint8), labels

    return data.dataset("tiny", *pictures(train_per_class), *pictures(test_per_class), shape)


def image_files(folder: Path, classes: tuple[str, ...], count: int, size: tuple[int, int] = (4, 3)) -> None:
    """A folder of PNG files for each class, of noise that differs from file to file."""
    draw = torch.Generator().manual_seed(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = torch.randint(0, 256, (size[1], size[0], 3), generator=draw, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(folder / name / f"{number}.png")


def part(kind: str, name: str, given: dict | None = None):
    """The module of a part and its settings; where none are given, those of `EAGER`."""
    eager = EAGER.get(name, {}) if kind == "interventions" else {}
    return parts.find(kind, name), parts.settings(kind, name, given or eager, "")


def intervention(name: str, seeds: tuple[int, ...], **given) -> Intervention:
    """An intervention on the CPU."""
    module, settings = part("interventions", name, given)
    return module.build(settings, seeds, "cpu")


def rule(name: str, lanes: int, device: str = "cpu", **given):
    """An optimizer by the first word of its name."""
    module, settings = part("optimizers", name.split(maxsplit=1)[0], given)
    return module.build(settings, lanes, device)


def mlp(features: int, outputs: int, widths: list[int]) -> Model:
    """A fully connected network."""
    module, settings = part("models", "mlp", {"widths": widths})
    return module.build(settings, (1, 1, features), outputs)


def network(name: str, given: dict, images: Dataset, sequence) -> Model:
    """A model for the images and outputs of a task sequence."""
    module, settings = part("models", name, given)
    return module.build(settings, images.shape, sequence.output_count)


def experiment(
    optimizer: str = "sgd",
    optimizer_settings: dict | None = None,
    *,
    seeds: tuple[int, ...] = (0, 1, 2),
    tasks: str = "permuted_pixels",
    task_settings: dict | None = None,
    widths: tuple[int, ...] = (7, 5),
    model: str = "mlp",
    model_settings: dict | None = None,
    interventions: dict[str, dict] | None = None,
    images: Dataset | dict | None = None,
    batch_size: int = 5,
    passes: int = 1,
    diagnostics: Diagnostics | None = None,
    probes: dict | None = None,
) -> Experiment:
    """A tiny experiment; by default 3 tasks with a quarter of the images held out.

    `images` may be arguments of `dataset`; `widths` are those of an MLP; `probes` are arguments of `probes_of`.
    """
    images = images if isinstance(images, Dataset) else dataset(**images or {})
    if optimizer_settings is None:
        optimizer_settings = OPTIMIZERS[optimizer]
    module, settings = part("tasks", tasks, {"count": 3, "validation_fraction": 0.25} | (task_settings or {}))
    sequence = module.build(settings, images, seeds)
    acting = []
    for name, given in (interventions or {}).items():
        module, settings = part("interventions", name, given)
        acting.append(module.build(settings, seeds, "cpu"))
    return Experiment(
        dataset=images,
        tasks=sequence,
        model=network(model, {"widths": list(widths)} if model_settings is None else model_settings, images, sequence),
        rule=rule(optimizer, len(seeds), **{"lr": 0.1, **optimizer_settings}),
        interventions=tuple(acting),
        seeds=seeds,
        batch_size=batch_size,
        passes=passes,
        diagnostics=diagnostics or Diagnostics(),
        device="cpu",
        probes=None if probes is None else probes_of(len(seeds), **probes),
    )


def probes_of(lanes: int, operations: dict[str, dict], boundaries=(1,), lr=(0.1,)) -> Probes:
    """Probes with operations, by their names."""
    sgd = parts.find("optimizers", "sgd")
    found = []
    for name, given in operations.items():
        module, settings = part("operations", name, given)
        found += [(name, operation) for operation in module.build(settings)]
    return Probes(
        boundaries=boundaries,
        operations=tuple(found),
        rules={rate: sgd.build(sgd.Settings(lr=rate), lanes, "cpu") for rate in lr},
        layerwise={rate: sgd.layerwise(rate, lanes, "cpu") for rate in lr},
    )


def minibatches(experiment: Experiment, index: int, *, size: int | None = None, passes: int | None = None):
    """Inputs and labels of each step of a task, with pixels moved."""
    feed = Feed(experiment.dataset, experiment.tasks.task(index), experiment.device)
    choices = feed.choices(experiment.seeds, index, size or experiment.batch_size, passes or experiment.passes)
    return [feed.minibatch(chosen) for chosen in choices]


def load_checkpoint(path: Path, identity: str) -> State:
    """The state in a checkpoint's file."""
    return checkpoint.load(path.read_bytes(), identity, "cpu", str(path))


def built(config: TrialConfig) -> Experiment:
    """The experiment of a configuration whose data set needs no download."""
    return build(config, load_dataset(config, Path("nowhere")))


@contextlib.contextmanager
def float64() -> Iterator[None]:
    """Makes new floating-point tensors float64, so that a wrong equation stands out from rounding."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@dataclass(frozen=True)
class PlainModel:
    """A model that does not know its own gradient and needs pixels moved."""

    model: Model

    @property
    def hidden_layers(self):
        return self.model.hidden_layers

    def initial(self, seeds: tuple[int, ...], *purpose_and_task) -> Tensors:
        return self.model.initial(seeds, *purpose_and_task)

    def forward(self, params: Tensors, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        return self.model.forward(params, inputs)


@dataclass(frozen=True)
class PlainFloat64Model(PlainModel):
    """The same with inputs cast to float64; make its parameters within `float64()`."""

    def forward(self, params: Tensors, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        return self.model.forward(params, inputs.to(torch.float64))


@dataclass(frozen=True)
class DirectFloat64Model(PlainFloat64Model):
    """A float64 model that knows its own gradient."""

    def gradient_function(self, inputs: Tensor, labels: Tensor):
        return self.model.gradient_function(inputs.to(torch.float64), labels)


@dataclass(frozen=True)
class Float64Model(DirectFloat64Model):
    """A float64 model that also works on some features."""

    def take_features(self, params: Tensors, features: Tensor) -> Tensors:
        return self.model.take_features(params, features)

    def put_features(self, params: Tensors, features: Tensor, taken: Tensors) -> Tensors:
        return self.model.put_features(params, features, taken)


def plainly(experiment: Experiment) -> Experiment:
    """The same experiment, by autograd and with pixels moved."""
    return replace(experiment, model=PlainModel(experiment.model))


def in_float64(experiment: Experiment, *, plain: bool = False) -> Experiment:
    """The same experiment with a network that computes in float64."""
    model = experiment.model
    kind = PlainFloat64Model
    if isinstance(model, DirectModel) and not plain:
        kind = Float64Model if isinstance(model, Selective) else DirectFloat64Model
    return replace(experiment, model=kind(model))


def step(rule, params: Tensors, memory: Tensors, gradient_at):
    """A step of a rule that does not change its arguments."""
    params, memory = ({name: value.clone() for name, value in tensors.items()} for tensors in (params, memory))
    return rule.step(params, memory, gradient_at)


def stepped(acting: Intervention, model: Model, params: Tensors, memory: Tensors, state: Tensors) -> Learner:
    """What an intervention makes of copies after a step, on the same two images in each lane."""
    lanes = len(next(iter(params.values())))
    inputs = torch.rand(1, 2, features_of(model), generator=torch.Generator().manual_seed(0)).expand(lanes, -1, -1)
    seen = Step(model, MinibatchGradient(model, inputs, torch.zeros(lanes, 2, dtype=torch.int64))(params))
    copies = ({name: value.clone() for name, value in tensors.items()} for tensors in (params, memory, state))
    return acting.after_step(Learner(*copies), seen)


def crossed(acting: Intervention, model: Model, params: Tensors, memory: Tensors, state: Tensors, task=1) -> Learner:
    """What an intervention makes of tensors at a boundary, the next task having the same images in each lane."""
    lanes = len(next(iter(params.values())))

    def images(count: int) -> tuple[Tensor, Tensor]:
        inputs = torch.rand(1, 5, features_of(model), generator=torch.Generator().manual_seed(task))[:, :count]
        return inputs.expand(lanes, -1, -1), torch.zeros(lanes, inputs.shape[1], dtype=torch.int64)

    return acting.before_task(Learner(params, memory, state), Boundary(model, task, images))


def features_of(model: Model) -> int:
    """Features of a fully connected network's inputs."""
    return model.initial((0,))["0/weight"].shape[2]


def results(experiment: Experiment, start=None) -> list[TaskResult]:
    """All results of an experiment."""
    return list(train(experiment, start))


def state_tensors(state) -> Tensors:
    """Every tensor of a state by a unique name; axis 0 is the lane, except in `BY_TASK`."""
    tensors = {f"params {name}": value for name, value in state.params.items()}
    tensors |= {f"memory {name}": value for name, value in state.memory.items()}
    for i, own in enumerate(state.intervention_states):
        tensors |= {f"intervention {i} {name}": value for name, value in own.items()}
    return tensors | {"diverged": state.diverged, "test": state.test, "validation": state.validation}


BY_TASK = ("test", "validation")
"""The tensors of a state with axes [task, lane]."""


MEASURES = ("test_accuracy", "validation_accuracy", "online_accuracy", "online_loss")
"""The fields of a result with one number per lane."""
