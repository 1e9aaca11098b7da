"""RQ1 and RQ2 of OneTrans (onetrans.txt 4.2, 4.3); RQ3 is `benchmarks.onetrans_efficiency`, RQ4 `uniscale scale`."""

from models.compare import System, Table

AGNOSTIC = "model.onetrans.fusion=timestamp_agnostic"
MEASURES = ("click.auc", "click.uauc", "conversion.auc", "conversion.uauc")
READING = "The paper's gains are percentages as printed, which do not say whether of the value or in points."
# OneTrans-L has 8 / 6 of the layers and 384 / 256 of the width of OneTrans-S; ours of params.yaml stands for S.
LARGE = ("model.onetrans.layers=3", "model.onetrans.dim=48")


def gains(*values: float) -> dict[str, float]:
    """Published gains, in the order of MEASURES."""
    return dict(zip(MEASURES, values, strict=True))


ONETRANS: dict[str, Table] = {
    "onetrans-1": Table(
        (
            System("DCNv2 + DIN", "dcnv2", "search", ("model.encoder=din",)),
            *(
                System(label, model, "search", (f"model.encoder={encoder}",), gains(*values))
                for label, model, encoder, values in (
                    ("Wukong + DIN", "wukong", "din", (0.08, 0.11, 0.14, 0.11)),
                    ("HiFormer + DIN", "hiformer", "din", (0.11, 0.18, 0.23, -0.20)),
                    ("RankMixer + DIN", "rankmixer", "din", (0.27, 0.36, 0.43, 0.19)),
                    ("RankMixer + StackDIN", "rankmixer", "stackdin", (0.40, 0.37, 0.63, -1.28)),
                    ("RankMixer + LONGER", "rankmixer", "longer", (0.49, 0.59, 0.47, 0.44)),
                    ("RankMixer + Transformer", "rankmixer", "transformer", (0.57, 0.90, 0.52, 0.75)),
                )
            ),
            System("OneTrans (S)", "onetrans", "search", paper=gains(1.13, 1.77, 0.90, 1.66)),
            System("OneTrans, larger (L)", "onetrans", "search", LARGE, gains(1.53, 2.79, 1.14, 3.23)),
        ),
        MEASURES,
        f"{READING} S and L have the paper's ratios of depth and width, not its sizes (models/README.md).",
    ),
    "onetrans-2": Table(
        (
            System("OneTrans", "onetrans", "search"),
            *(
                System(label, "onetrans", "search", settings, gains(*values))
                for label, settings, values in (
                    (
                        "Group-wise Tokenizer",
                        ("model.onetrans.tokenizer=group_wise",),
                        (-0.10, -0.30, -0.12, -0.10),
                    ),
                    ("Timestamp-agnostic Fusion", (AGNOSTIC,), (-0.09, -0.22, -0.20, -0.21)),
                    (
                        "Timestamp-agnostic Fusion without [SEP]",
                        (AGNOSTIC, "model.onetrans.sep=false"),
                        (-0.13, -0.32, -0.29, -0.33),
                    ),
                    (
                        "Shared parameters for all tokens",
                        ("model.onetrans.mixed=false",),
                        (-0.15, -0.29, -0.14, -0.29),
                    ),
                    ("Full attention", ("model.onetrans.causal=false",), (0.00, 0.01, -0.03, 0.06)),
                    ("Without pyramid stack", ("model.onetrans.pyramid=false",), (-0.05, 0.06, -0.04, -0.42)),
                )
            ),
        ),
        MEASURES,
        READING,
    ),
}
