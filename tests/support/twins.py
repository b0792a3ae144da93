"""The reference for stacked lanes: a plain loop over seeds with torch.nn and torch.optim."""

import math
from dataclasses import replace

import plain_rules
import pytorch_optimizer
import tiny
import torch
from plain_rules import weights
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from study.contracts import Experiment, Task
from study.lanes import generator
from study.models import StackedModule

EQUAL_BUT_FOR_ROUNDING = {"rtol": 1e-9, "atol": 1e-11}
"""Tolerance in float64."""

EQUAL_BUT_FOR_A_NORM_IN_FLOAT32 = {"rtol": 1e-5, "atol": 1e-6}
"""Tolerance in float64 where pytorch_optimizer rounds the gradient's norm to float32 and adds 1e-12."""


def network(params: dict[str, Tensor], lane: int, model=None) -> nn.Sequential:
    """The same network as torch.nn modules, with the weights of one lane.

    `model` says the shape of pictures and the pooling, if the network has convolutions.
    """
    layers: list[nn.Module] = []
    for i in range(len(params) // 2):
        weight, bias = params[f"{i}/weight"][lane], params[f"{i}/bias"][lane]
        if weight.dim() == 4:  # [out, row, column, in]
            layer = nn.Conv2d(weight.shape[3], weight.shape[0], tuple(weight.shape[1:3]))
            copied = weight.permute(0, 3, 1, 2)
        else:
            copied = weight.transpose(1, 2).flatten(1) if weight.dim() == 3 else weight  # [out, position, map]
            layer = nn.Linear(*copied.T.shape)
        with torch.no_grad():
            layer.weight.copy_(copied)
            layer.bias.copy_(bias)
        if i == 0 and weight.dim() == 4:
            layers.append(nn.Unflatten(1, model.shape))
        if weight.dim() == 3:
            layers.append(nn.Flatten())
        layers += [layer, nn.ReLU()]
        if weight.dim() == 4:
            layers.append(nn.MaxPool2d(model.stages[i].pool))
    return nn.Sequential(*layers[:-1])


def modules_of(params: dict[str, Tensor], lane: int, model) -> nn.Sequential:
    """The network of one lane as a module that takes rows of features."""
    if not isinstance(model, StackedModule):
        return network(params, lane, model)
    module = model.made(0)
    module.load_state_dict({name: value[lane] for name, value in params.items()})
    return nn.Sequential(nn.Unflatten(1, model.shape), module)


def pictures(images: Tensor, chosen: Tensor, task: Task, lane: int) -> Tensor:
    """The chosen images as input of a lane's network, with pixels moved."""
    x = images[chosen].float() * (1 / 255)
    return (x if task.pixel_order is None else x[:, task.pixel_order[lane]]).to(torch.get_default_dtype())


def steps_of(experiment: Experiment, task: Task) -> int:
    """The number of steps of a task."""
    return math.ceil(task.train.shape[1] / experiment.batch_size) * experiment.passes


def plain_run(experiment: Experiment, make_step) -> list[dict]:
    """Trains seed after seed on images in the same order, with `make_step(net) -> step(x, y) -> logits`."""
    runs = []
    start = experiment.model.initial(experiment.seeds)
    for lane, seed in enumerate(experiment.seeds):
        net = modules_of(start, lane, getattr(experiment.model, "model", experiment.model))
        step = make_step(net)
        run = {"test_accuracy": [], "validation_accuracy": [], "online_accuracy": [], "online_loss": []}
        for index in range(experiment.tasks.count):
            task = experiment.tasks.task(index)
            net.place = plain_rules.Place(seed, index, experiment.tasks.count, 0, steps_of(experiment, task))
            chosen, draw = task.train[lane], generator(seed, "order", index)
            hits, losses = 0, 0.0
            for _ in range(experiment.passes):
                order = chosen[torch.randperm(len(chosen), generator=draw)]
                for first in range(0, len(order), experiment.batch_size):
                    batch = order[first : first + experiment.batch_size]
                    y = task.outputs[experiment.dataset.train_labels[batch]]
                    logits = step(pictures(experiment.dataset.train_images, batch, task, lane), y)
                    net.place = replace(net.place, step=net.place.step + 1)
                    hits += int((logits.argmax(1) == y).sum())
                    losses += float(cross_entropy(logits, y, reduction="sum"))
            run["online_accuracy"].append(hits / (len(chosen) * experiment.passes))
            run["online_loss"].append(losses / (len(chosen) * experiment.passes))
            for measure, images, labels, kept in (
                ("test_accuracy", experiment.dataset.test_images, experiment.dataset.test_labels, task.test),
                (
                    "validation_accuracy",
                    experiment.dataset.train_images,
                    experiment.dataset.train_labels,
                    task.validation[lane],
                ),
            ):
                with torch.no_grad():
                    guess = net(pictures(images, kept, task, lane)).argmax(1)
                run[measure].append(float((guess == task.outputs[labels[kept]]).double().mean()))
        runs.append(run | {"weights": weights(net)})
    return runs


def assert_twins(experiment: Experiment, make_step, tolerance: dict[str, float] = EQUAL_BUT_FOR_ROUNDING) -> None:
    """Asserts that the experiment equals the plain loop: every measure of every task, and the last weights."""
    runs = plain_run(tiny.in_float64(experiment), make_step)
    for plain in (True, False):
        stack = tiny.results(tiny.in_float64(experiment, plain=plain))
        for lane, run in enumerate(runs):
            for name, value in run["weights"].items():
                torch.testing.assert_close(stack[-1].state.params[name][lane], value, **tolerance)
            for measure in tiny.MEASURES:
                ours = torch.stack([getattr(result, measure)[lane] for result in stack])
                torch.testing.assert_close(ours, torch.tensor(run[measure]), **tolerance)


def with_closure(net: nn.Module, optimizer, *, gradient_first: bool, extra_loss=lambda: 0.0):
    """A step of an optimizer that calls for the gradient itself."""

    def step(x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            logits = net(x)

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = cross_entropy(net(x), y) + extra_loss()
            loss.backward()
            return loss

        if gradient_first:
            closure()
        optimizer.step(closure)
        return logits

    return step


def double_backprop(net: nn.Module, penalty: float, chosen: dict[str, float]):
    """torch.optim.SGD on loss + penalty |gradient|, the gradient's norm differentiated by autograd."""
    optimizer = torch.optim.SGD(net.parameters(), **chosen)

    def step(x: Tensor, y: Tensor) -> Tensor:
        logits = net(x)
        gradient = torch.autograd.grad(cross_entropy(logits, y), list(net.parameters()), create_graph=True)
        length = torch.cat([part.flatten() for part in gradient]).norm()
        curved = torch.autograd.grad(length, list(net.parameters()), allow_unused=True)
        for weight, slope, bend in zip(net.parameters(), gradient, curved, strict=True):
            weight.grad = slope.detach() if bend is None else (slope + penalty * bend).detach()
        optimizer.step()
        return logits.detach()

    return step


def plain_step(optimizer: str, lr: float):
    """A step of another package's optimizer, and how closely it agrees."""
    given = tiny.OPTIMIZERS[optimizer]
    common = {"lr": lr, "momentum": given.get("momentum", 0.0), "weight_decay": given.get("weight_decay", 0.0)}
    if not optimizer.startswith(("sgd", "sam", "gnp")) or "base" in given:
        return (
            lambda net: plain_rules.step(net, optimizer.split(maxsplit=1)[0], {"lr": lr, **given})
        ), EQUAL_BUT_FOR_ROUNDING
    if optimizer == "gnp exact":
        return (lambda net: double_backprop(net, given["lambda"], common)), EQUAL_BUT_FOR_ROUNDING

    def make_step(net):
        params = net.parameters()
        if optimizer.startswith("sgd"):
            return with_closure(net, torch.optim.SGD(params, **common), gradient_first=False)
        if optimizer.startswith("sam"):
            other = pytorch_optimizer.SAM(params, torch.optim.SGD, rho=given["rho"], **common)
            return with_closure(net, other, gradient_first=True)
        blend = given["lambda"] / given["r"]
        other = pytorch_optimizer.WSAM(
            net,
            params,
            torch.optim.SGD,
            rho=given["r"],
            gamma=blend / (1 + blend),
            decouple=False,
            adaptive=False,
            **common,
        )
        return with_closure(net, other, gradient_first=False)

    return make_step, EQUAL_BUT_FOR_ROUNDING if optimizer.startswith("sgd") else EQUAL_BUT_FOR_A_NORM_IN_FLOAT32
