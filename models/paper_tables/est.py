"""Tables 1 to 4 of EST (est.txt 4 and 6); its Figure 3 is in `models.attention_tables`, 4 and 5 in `models.scaling`."""

from models.compare import System, Table

FULL = ("model.est.attention=full", "model.est.csa=false")
SIMTIER = ("model.simtier_tiers=8",)  # 6.1.4: all baselines read SimTier; EST's own is in its `content`
MEASURES = ("click.auc", "click.gauc")
RELATIVE = "The paper's gains are relative, in percent of the base's value; its GAUC groups by user, ours by user and "
RELATIVE += "query."
POINTS = "The paper's gains are differences of its absolute values; its GAUC groups by user, ours by user and query."


def gains(auc: float, gauc: float) -> dict[str, float]:
    """Published gains of AUC and GAUC, in percent."""
    return {"click.auc": auc, "click.gauc": gauc}


EST: dict[str, Table] = {
    "est-1": Table(
        (
            System("Full Attention", "est", "search", FULL),
            *(
                System(
                    f"<{query}, {key}> masked",
                    "est",
                    "search",
                    (*FULL, f"model.est.masked_blocks=[{query}{key}]"),
                    gains(auc, gauc),
                )
                for query, key, auc, gauc in (
                    ("B", "B", -0.01, -0.00),
                    ("B", "N", -0.03, -0.02),
                    ("N", "N", -0.03, -0.02),
                    ("N", "B", -0.20, -0.20),
                )
            ),
        ),
        MEASURES,
        RELATIVE,
    ),
    "est-2": Table(
        (
            System("ID-based Model", "est", "search", ("model.est.content=[]", "model.est.csa=false")),
            *(
                System(
                    label,
                    "est",
                    "search",
                    (f"model.est.content=[{content}]", "model.est.csa=false"),
                    gains(auc, gauc),
                )
                for label, content, auc, gauc in (
                    ("Side Information", "side_information", 0.44, 0.89),
                    ("Semantic ID", "semantic_id", 0.47, 0.64),
                    ("SimTier", "simtier", 1.18, 1.58),
                    ("SimTier + Side Information", "simtier, side_information", 0.95, 1.47),
                )
            ),
        ),
        MEASURES,
        f"{RELATIVE} Semantic ids are of random centres here, as samples bring no trained quantiser.",
    ),
    "est-3": Table(
        (
            System("MLP", "dlrm_mlp", "search", SIMTIER),
            *(
                System(label, model, "search", SIMTIER if model != "est" else (), paper=gains(auc, gauc))
                for label, model, auc, gauc in (  # AUC and GAUC less 0.6895 and 0.6459
                    ("AutoInt", "autoint", 0.12, 0.18),
                    ("DCNv2", "dcnv2", 0.21, 0.23),
                    ("RankMixer", "rankmixer", 0.19, 0.23),
                    ("HiFormer", "hiformer", 0.33, 0.34),
                    ("MTGR", "mtgr", 0.22, 0.15),
                    ("OneTrans", "onetrans", 0.26, 0.18),
                    ("OneTrans-D", "onetrans_d", 0.46, 0.41),
                    ("OneTrans-F", "onetrans_f", 0.60, 0.48),
                    ("EST", "est", 0.68, 0.56),
                )
            ),
        ),
        MEASURES,
        f"{POINTS} Its scalable models have about 100 M dense parameters each; --budget gives all one size.",
    ),
    "est-4": Table(
        (
            System("Full-Attention", "est", "search", FULL),
            System("LCA", "est", "search", ("model.est.csa=false",), gains(-0.01, -0.03)),
            System("LCA + CSA", "est", "search", paper=gains(0.17, 0.14)),
        ),
        MEASURES,
        f"{RELATIVE} Its FLOPs fall by 72.23 % (LCA) and 72.11 % (LCA + CSA).",
    ),
}
