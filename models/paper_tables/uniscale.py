"""Tables 1 to 4 and Figure 4 of UniScale (uniscale.txt 4), whose gains are in percentage points over the first row."""

from models.compare import System, Table

NO_ESUIF = ("model.hhsft.dref=false", "model.hhsft.dapga=false")
MEASURES = ("click.auc", "click.gauc", "click.hr@5")
POINTS = "The paper's gains are in percentage points."
# Widths that give about two and four times the dense parameters of params.yaml's HHSFT on the simulated marketplace.
D_H, D_G = {"2x": 64, "4x": 108}, {"2x": 60, "4x": 98}


def scaled(part: str, width: int) -> tuple[str, ...]:
    """The setting of a width d_H or d_G."""
    return (f"model.hhsft.{part}_dim={width}",)


UNISCALE: dict[str, Table] = {
    "uniscale-1": Table(
        (
            System("HHSFT, search-exposed", "hhsft", "search"),
            System("HHSFT, + unexposed", "hhsft", "unexposed"),
            System("HHSFT, + label attribution", "hhsft", "attributed"),
            System("HHSFT, + searchification (ES3)", "hhsft", "entire"),
        ),
        MEASURES,
        "The paper's table counts data alone, which the first table repeats; what each stage does to HHSFT is ours.",
        stages={
            "search-exposed": (1.0, 1.0, 1.0),
            "+ unexposed expansion": (1.0, 3.0, 1.0),
            "+ label attribution": (1.0, 3.0, 2.0),
            "+ searchification": (2.0, 5.0, 4.0),
        },
    ),
    "uniscale-2": Table(
        (
            System("DLRM-MLP", "dlrm_mlp", "search"),
            System("DCNv2", "dcnv2", "search", paper={"click.auc": 0.08, "click.gauc": 0.01}),
            System("AutoInt", "autoint", "search", paper={"click.auc": 0.26, "click.gauc": 0.14}),
            System("HiFormer", "hiformer", "search", paper={"click.auc": 0.54, "click.gauc": 0.49}),
            System("Wukong", "wukong", "search", paper={"click.auc": 0.21, "click.gauc": 0.13}),
            System("RankMixer", "rankmixer", "search", paper={"click.auc": 0.38, "click.gauc": 0.32}),
            System("HHSFT", "hhsft", "search", paper={"click.auc": 0.82, "click.gauc": 0.62}),
            System("HHSFT + ES3", "hhsft", "entire", paper={"click.auc": 1.14, "click.gauc": 0.86}),
        ),
        MEASURES,
        f"{POINTS} Its models differ in size as well (15 M to 300 M dense parameters); --budget gives all one size.",
    ),
    "uniscale-3": Table(
        (
            System("MLP", "hhsft", "search", ("model.hhsft.hfa_layers=0", "model.hhsft.gfa_layers=0", *NO_ESUIF)),
            System(
                "Transformer",
                "hhsft",
                "search",
                ("model.hhsft.hfa_token_specific=false", "model.hhsft.gfa_layers=0", *NO_ESUIF),
                {"click.auc": 0.17},
            ),
            System(
                "Heterogeneous Attention",
                "hhsft",
                "search",
                ("model.hhsft.gfa_layers=0", *NO_ESUIF),
                {"click.auc": 0.41},
            ),
            System("HHFI", "hhsft", "search", NO_ESUIF, {"click.auc": 0.80}),
        ),
        ("click.auc", "click.gauc"),
        f"{POINTS} It prints AUC alone.",
    ),
    "uniscale-4": Table(
        (
            System("search: HHFI", "hhsft", "search", NO_ESUIF),
            System(
                "search: HHFI+DREF+DAPGA",
                "hhsft",
                "search",
                paper={"click.auc": 0.02, "click.gauc": 0.01, "click.hr@5": 0.02},
            ),
            System(
                "ES3: HHFI", "hhsft", "entire", NO_ESUIF, {"click.auc": -0.43, "click.gauc": -0.24, "click.hr@5": -4.76}
            ),
            System(
                "ES3: HHFI+DREF",
                "hhsft",
                "entire",
                ("model.hhsft.dapga=false",),
                {"click.auc": 0.19, "click.gauc": 0.25, "click.hr@5": 0.39},
            ),
            System(
                "ES3: HHFI+DAPGA",
                "hhsft",
                "entire",
                ("model.hhsft.dref=false",),
                {"click.auc": 0.22, "click.gauc": 0.18, "click.hr@5": 0.17},
            ),
            System(
                "ES3: HHFI+DREF+DAPGA",
                "hhsft",
                "entire",
                paper={"click.auc": 0.32, "click.gauc": 0.26, "click.hr@5": 0.44},
            ),
        ),
        MEASURES,
        POINTS,
    ),
    "uniscale-figure-4": Table(
        (
            System("1x, search", "hhsft", "search"),
            System("d_H 2x, search", "hhsft", "search", scaled("hfa", D_H["2x"])),
            System("d_H 4x, search", "hhsft", "search", scaled("hfa", D_H["4x"]), {"click.auc": 0.17}),
            System("d_G 2x, search", "hhsft", "search", scaled("gfa", D_G["2x"])),
            System("d_G 4x, search", "hhsft", "search", scaled("gfa", D_G["4x"]), {"click.auc": 0.30}),
            System("1x, ES3", "hhsft", "entire", paper={"click.auc": 0.12}),
            System("d_G 2x, ES3", "hhsft", "entire", scaled("gfa", D_G["2x"])),
            System("d_G 4x, ES3", "hhsft", "entire", scaled("gfa", D_G["4x"])),
        ),
        ("click.auc", "click.gauc"),
        f"{POINTS} Only values that its text names are given: at 4x ES3 leads its search curve by +0.0032.",
        curves={
            "d_H, search": ("1x, search", "d_H 2x, search", "d_H 4x, search"),
            "d_G, search": ("1x, search", "d_G 2x, search", "d_G 4x, search"),
            "d_G, ES3": ("1x, ES3", "d_G 2x, ES3", "d_G 4x, ES3"),
        },
    ),
}
