"""Surgery on networks: is sharpness a cause? The first experiment.

SGD learns 100 permutations of 10,000 images. Before four of the tasks each network is copied, an operation changes the copy, and
all copies are trained on the same next task, on the same minibatches. Layers are rescaled to five levels of sharpness, which
leaves the function and the total norm as they are; `study/docs/cause.md` has the question, the other operations and the criteria
by which the report judges.

    study run surgery && study report surgery

There is one trial for each learning rate of the copies, so that they run side by side. The network that is copied is the same in
all of them.
"""

from search_spaces.space import Method, SearchSpace

LRS = (0.003, 0.01, 0.03)
"""Learning rates of the copies."""

SPACE = SearchSpace(
    name="surgery",
    description="Copies of networks with another sharpness, norm or units, trained on the next task: is sharpness a cause?",
    scenarios={
        "permuted_pixels": {"tasks/name": "permuted_pixels", "tasks/count": 100, "tasks/images_per_task": 10_000},
    },
    methods={
        "sgd": Method(
            settings={"optimizer/lr": 0.01},
            points=tuple({"probes/lr": [lr]} for lr in LRS),
        ),
    },
    settings={
        "data/name": "mnist",
        "probes/boundaries": [10, 30, 60, 90],
        "operations/layer_rescaling": {},
        "operations/norm_rescaling": {},
        "operations/random_displacement": {},
        "operations/idle_units": {},
        "operations/unit_permutation": {},
        "operations/fresh_weights": {},
        "diagnostics/units_every": 10,
        "diagnostics/curvature_every": 10,
        "diagnostics/onset_every": 10,
        "diagnostics/forgetting_every": 0,
    },
    seeds=tuple(range(10)),
)
