"""Remedies as their authors' codes have them, on one network of torch modules, unit by unit."""

import math
from collections import Counter

import torch
from torch import Tensor, nn
from twins import network, weights

from study.contracts import Model


def layers_of(net: nn.Sequential) -> list[nn.Linear | nn.Conv2d]:
    return [layer for layer in net if isinstance(layer, nn.Linear | nn.Conv2d)]


def hidden_of(net: nn.Sequential, x: Tensor) -> list[Tensor]:
    """Activations [image, unit] of each hidden layer; those of a feature map are its mean after pooling."""
    hidden, signal, connected = [], x, False
    with torch.no_grad():
        for layer in net:
            signal = layer(signal)
            connected = isinstance(layer, nn.Linear) or (connected and isinstance(layer, nn.ReLU))
            if isinstance(layer, nn.MaxPool2d):
                hidden.append(signal.mean((2, 3)))
            elif isinstance(layer, nn.ReLU) and connected:
                hidden.append(signal)
    return hidden


class PlainResets:
    """Resets of units, with the rows that the study draws, one after the other."""

    def __init__(self, net: nn.Sequential, optimizer: torch.optim.Optimizer, model: Model, seed: int, purpose: str):
        self.net, self.layers, self.optimizer = net, layers_of(net), optimizer
        self._model, self._seed, self._purpose = model, seed, purpose
        self.draw(0)

    def draw(self, task: int) -> None:
        params = self._model.initial((self._seed,), self._purpose, task)
        self._fresh = layers_of(network(params, 0, getattr(self._model, "model", self._model)))
        self._taken = [0] * len(self.layers)
        self.boundary()

    def boundary(self) -> None:
        """What the remedy does between tasks."""

    def after(self, hidden: list[Tensor]) -> None:
        """What the remedy does after a step, given the activations before it."""

    @torch.no_grad()
    def reset(self, units: list[list[int]]) -> None:
        """Incoming weights of all units first, then outgoing ones."""
        for i, chosen in enumerate(units):
            for unit in chosen:
                fresh, row = self._fresh[i], self._taken[i] % len(self._fresh[i].weight)
                self.layers[i].weight[unit], self.layers[i].bias[unit] = fresh.weight[row], fresh.bias[row]
                self._taken[i] += 1
                for param in (self.layers[i].weight, self.layers[i].bias):
                    self._buffer(param)[unit] = 0
        for i, chosen in enumerate(units):
            for unit in chosen:
                self.outgoing(self.layers[i + 1].weight, i)[:, unit] = 0
                self.outgoing(self._buffer(self.layers[i + 1].weight), i)[:, unit] = 0

    def _buffer(self, param: Tensor) -> Tensor:
        buffer = self.optimizer.state[param].get("momentum_buffer")
        return torch.zeros_like(param) if buffer is None else buffer

    def outgoing(self, weight: Tensor, i: int) -> Tensor:
        """Weights that read layer i, [out, unit, ...]; a map is read at several places."""
        return weight.view(len(weight), len(self.layers[i].weight), *weight.shape[2:], -1)


class PlainReDo(PlainResets):
    """As dopamine's labs/redo."""

    def __init__(self, *words, threshold: float, every: int):
        super().__init__(*words)
        self.threshold, self.every, self.steps = threshold, every, 0

    def after(self, hidden):
        self.steps += 1
        if self.steps % self.every == 0:
            scores = [values.abs().mean(0) / (values.abs().mean() + 1e-9) for values in hidden]
            self.reset([(score <= self.threshold).nonzero().flatten().tolist() for score in scores])


class PlainContinualBackprop(PlainResets):
    """As lop/algos/gnt.py with `accumulate`."""

    def __init__(self, *words, rate: float, maturity: int, decay: float, utility: str):
        super().__init__(*words)
        self.rate, self.maturity, self.decay, self.utility = rate, maturity, decay, utility
        self.age, self.use, self.mean = ([[0.0] * len(layer.weight) for layer in self.layers] for _ in range(3))
        self.due = [0.0] * len(self.layers)

    def after(self, hidden):
        units = []
        for i, values in enumerate(hidden):
            corrected = {}
            for unit in range(len(self.layers[i].weight)):
                self.age[i][unit] += 1
                started = 1 - self.decay ** self.age[i][unit]
                h = values[:, unit]
                self.mean[i][unit] = self.decay * self.mean[i][unit] + (1 - self.decay) * float(h.mean())
                out = float(self.outgoing(self.layers[i + 1].weight.detach(), i)[:, unit].abs().mean())
                into = float(self.layers[i].weight[unit].detach().abs().mean())
                if self.utility == "contribution":
                    new = out * float(h.abs().mean())
                else:
                    new = out * float((h - self.mean[i][unit] / started).abs().mean()) / into
                self.use[i][unit] = self.decay * self.use[i][unit] + (1 - self.decay) * new
                if self.age[i][unit] > self.maturity:
                    corrected[unit] = self.use[i][unit] / started
            self.due[i] += self.rate * len(corrected)
            count = int(self.due[i])
            self.due[i] -= count
            # the least useful ones; the study gives them rows in the order of their numbers
            chosen = sorted(sorted(corrected, key=lambda unit: corrected[unit])[:count])
            for unit in chosen:
                self.age[i][unit] = self.use[i][unit] = self.mean[i][unit] = 0.0
            units.append(chosen)
        self.reset(units)


class PlainSNR(PlainResets):
    """As SelfNormalizedResets/src/algorithms/snr.py, with steps in place of images."""

    def __init__(self, *words, percentile: float, first: int, expansion: float, shortest: int, longest: int):
        self.layers = layers_of(words[0])
        self.percentile, self.expansion, self.shortest, self.longest = percentile, expansion, shortest, longest
        self.age, self.limit, self.spells = [], [], []
        super().__init__(*words)
        self.age = [[0] * len(layer.weight) for layer in self.layers]
        self.limit = [[first] * len(layer.weight) for layer in self.layers]
        self.spells = [[Counter() for _ in layer.weight] for layer in self.layers]

    def boundary(self):
        for limits, histograms in zip(self.limit, self.spells, strict=True):
            for unit, histogram in enumerate(histograms):
                total, reached, index = sum(histogram.values()), 0, 1
                for age in sorted(histogram):
                    reached += histogram[age]
                    if reached / total >= self.percentile:
                        index = age
                        break
                limit = index if index < limits[unit] else int(self.expansion * limits[unit])
                limits[unit] = max(self.shortest, min(limit, self.longest))
                histogram.clear()

    def after(self, hidden):
        units = []
        for i, values in enumerate(hidden):
            chosen = []
            for unit in range(len(self.layers[i].weight)):
                if (values[:, unit] <= 0).all():
                    self.age[i][unit] += 1
                else:
                    if self.age[i][unit]:
                        self.spells[i][unit][self.age[i][unit]] += 1
                    self.age[i][unit] = 0
                if self.age[i][unit] >= self.limit[i][unit]:
                    self.spells[i][unit][self.age[i][unit]] += 1
                    self.age[i][unit] = 0
                    chosen.append(unit)
            units.append(chosen)
        self.reset(units)


class PlainClipping:
    """As core/optim/weight_clipping.py."""

    def __init__(self, net: nn.Sequential, *, kappa: float, output_layer: bool):
        self.layers = layers_of(net) if output_layer else layers_of(net)[:-1]
        self.kappa = kappa

    @torch.no_grad()
    def after(self, hidden):
        for layer in self.layers:
            fan_in, _ = nn.init._calculate_fan_in_and_fan_out(layer.weight)
            for param in (layer.weight, layer.bias):
                param.clamp_(-self.kappa / math.sqrt(fan_in), self.kappa / math.sqrt(fan_in))


class PlainProjection:
    """The weights of each layer back to their first length."""

    def __init__(self, net: nn.Sequential, *, every: int):
        self.layers, self.every, self.steps = layers_of(net), every, 0
        self.lengths = [float(layer.weight.detach().square().sum().sqrt()) for layer in self.layers]

    @torch.no_grad()
    def after(self, hidden):
        self.steps += 1
        if self.steps % self.every == 0:
            for layer, length in zip(self.layers, self.lengths, strict=True):
                layer.weight *= length / float(layer.weight.square().sum().sqrt())


class PlainNoise:
    """Shrinks and perturbs at every step, with numbers from the ring of each task."""

    def __init__(self, net: nn.Sequential, rings: list[Tensor], *, decay: float, noise: float):
        self.net, self.rings, self.decay, self.noise = net, rings, decay, noise
        self.draw(0)

    def draw(self, task: int) -> None:
        self.ring, self.step = self.rings[task], 0

    @torch.no_grad()
    def after(self, hidden):
        place = self.step
        for value in weights(self.net).values():  # views of the network's own, in the order of the stack
            numbers = [float(self.ring[(place + i) % len(self.ring)]) for i in range(value.numel())]
            value.mul_(1 - self.decay).add_(self.noise * torch.tensor(numbers).view(value.shape))
            place += value.numel()
        self.step += 1
