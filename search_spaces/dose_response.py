"""SAM's rho, also negative, crossed with what is held.

Does sharpness change what a network can still learn, or do norms and idle units? `study/docs/cause.md` has the question, the
hypotheses and their criteria, and the report judges them. 49 arms are a dose of rho under a condition; rho = 0 is plain SGD:

    rho         -0.05 ("anti-SAM"), 0, 0.01, 0.02, 0.05, 0.1, 0.2
    nothing     held
    norms       of the layers, at their initial values: `weight_projection` after each step
    idle units  dormant units are reset five times a task: `redo`
    both
    layer norm  with L2
    GELU        instead of ReLU, with nothing and with both held

Seven more change sharpness in other ways, with nothing held: Friendly SAM, random SAM, a larger batch, a lower learning rate.

100 permutations of 10,000 images of MNIST, 10 seeds. No image is held out, for nothing is selected.
`study show dose_response` estimates the time.
"""

from search_spaces.space import Method, Point, SearchSpace

RHO = (-0.05, 0.01, 0.02, 0.05, 0.1, 0.2)
"""Doses; SGD is the dose 0."""

NORMS: Point = {"interventions/weight_projection/every": 1}
IDLE_UNITS: Point = {"interventions/redo/threshold": 0.025, "interventions/redo/every": 125}
GELU: Point = {"model/activation": "gelu"}

CONDITIONS: tuple[Point, ...] = (
    {},
    NORMS,
    IDLE_UNITS,
    {**NORMS, **IDLE_UNITS},
    {"model/layer_norm": "plain", "interventions/l2/strength": 1e-4},
    GELU,
    {**GELU, **NORMS, **IDLE_UNITS},
)

SPACE = SearchSpace(
    name="dose_response",
    description="SAM's rho from -0.05 to 0.2 with norms, idle units, both or nothing held; other ways to sharpness beside.",
    citation="The open question 2 of Koster and Kukla, arXiv 2409.17300",
    scenarios={
        "permuted_pixels": {"tasks/name": "permuted_pixels", "tasks/count": 100, "tasks/images_per_task": 10_000},
    },
    methods={
        "sgd": Method(
            points=(
                *CONDITIONS,
                {"training/batch_size": 32},
                {"training/batch_size": 64},
                {"optimizer/lr": 0.005},
            )
        ),
        "sam": Method(points=tuple({**held, "optimizer/rho": rho} for held in CONDITIONS for rho in RHO)),
        "friendly_sam": Method(points=({"optimizer/rho": 0.05}, {"optimizer/rho": 0.1})),
        "random_sam": Method(points=({"optimizer/rho": 1.0}, {"optimizer/rho": 5.0})),
    },
    settings={
        "data/name": "mnist",
        "model/name": "mlp",
        "model/widths": [100, 100],
        "training/batch_size": 16,
        "optimizer/lr": 0.01,
        "tasks/validation_fraction": 0.0,
        "diagnostics/units_every": 10,
        "diagnostics/curvature_every": 20,
        "diagnostics/onset_every": 10,
        "diagnostics/forgetting_every": 0,
    },
    seeds=tuple(range(10)),
)
