"""Tables 1 and 2 and Figure 2 of MDL (mdl.txt 4); its Figures 3 and 4 are in `models.attention_tables`."""

from models.compare import System, Table

MEASURES = ("click.qauc", "conversion.qauc")
READING = "The paper's gains are of its single-column search, the largest of its scenarios; ours of the target domain."
HEADS = f"{READING} Heads have their towers a domain here, the paper's a scenario."
NOT_RUN = {
    "QAUC of likes and favourites": "the samples hold no such task; conversions stand beside clicks",
    "QAUC of double-column and inner search": "these are scenarios of the paper's product",
}


def sized(model: str, layers: int, width: int) -> tuple[str, ...]:
    """Settings of L and d."""
    return (f"model.{model}.layers={layers}", f"model.{model}.dim={width}")


SIZES = {"1": (1, 0.5), "2": (2, 1.0), "3": (2, 2.0), "4": (4, 2.0)}  # place on the curve: layers, share of the width
MDL_CURVE = tuple(
    System(f"MDL {place}", "mdl", "entire", sized("mdl", layers, round(36 * share)))
    for place, (layers, share) in SIZES.items()
)
MMOE_CURVE = tuple(
    System(f"MMoE {place}", "rankmixer", "entire", ("model.head=mmoe", *sized("rankmixer", layers, round(32 * share))))
    for place, (layers, share) in SIZES.items()
)

MDL: dict[str, Table] = {
    "mdl-1": Table(
        (
            System("RankMixer", "rankmixer", "entire"),
            *(
                System(label, "rankmixer", "entire", (f"model.head={head}",), {"click.qauc": gain})
                for label, head, gain in (  # QAUC less 0.6389
                    ("SharedBottom", "shared_bottom", 0.02),
                    ("MMoE", "mmoe", 0.05),
                    ("STAR", "star", 0.00),
                    ("HMoE", "hmoe", 0.08),
                    ("PEPNet", "pepnet", 0.07),
                )
            ),
            System("MDL", "mdl", "entire", paper={"click.qauc": 0.28}),
        ),
        MEASURES,
        f"{HEADS} The paper gives all models one size, about 0.5 B parameters; --budget does it for the dense ones.",
        NOT_RUN,
    ),
    "mdl-2": Table(
        (
            System("MDL", "mdl", "search"),
            *(
                System(f"w/o {label}", "mdl", "search", (f"model.mdl.{switch}=false",), {"click.qauc": gain})
                for label, switch, gain in (
                    ("task token", "task_token", -0.12),
                    ("task-feature interaction", "task_feature_interaction", -0.04),
                    ("scenario token", "scenario_token", -0.17),
                    ("global scenario token", "global_scenario_token", -0.04),
                    ("scenario-feature interaction", "scenario_feature_interaction", -0.05),
                )
            ),
        ),
        MEASURES,
        f"{READING} It prints percentages and does not say whether of the value or in points.",
        NOT_RUN,
    ),
    "mdl-figure-2": Table(
        (MMOE_CURVE[0], *MMOE_CURVE[1:], *MDL_CURVE),
        MEASURES,
        f"{HEADS} The figure's values are not in its text: MDL lies above MMoE throughout, more so at larger sizes.",
        curves={
            "MDL": tuple(system.label for system in MDL_CURVE),
            "MMoE": tuple(system.label for system in MMOE_CURVE),
        },
    ),
}
