"""The model section of a configuration: sizes and switches of every architecture of the zoo, one class each."""

from typing import Literal, Self

from pydantic import Field, model_validator

from uniscale.sections import Section

# The names of models.zoo, so that a wrong one is refused before anything runs; a test holds them equal.
ViewName = Literal[
    "user_profile",
    "user_statistics",
    "user_behaviours",
    "user_moments",
    "query_statistics",
    "item_versions",
    "item_statistics",
]
ModelName = Literal[
    "dlrm_mlp",
    "dcnv2",
    "autoint",
    "hiformer",
    "wukong",
    "rankmixer",
    "hhsft",
    "onetrans",
    "onetrans_d",
    "onetrans_f",
    "est",
    "mdl",
    "mtgr",
]
EncoderName = Literal["mean", "din", "stackdin", "transformer", "longer"]
HeadName = Literal["single", "shared_bottom", "mmoe", "ple", "star", "hmoe", "pepnet"]


class HHSFTConfig(Section):
    """HHSFT (UniScale 3.4); the switches are the ablations of its Tables 3 and 4."""

    hfa_layers: int = Field(ge=0)
    hfa_dim: int = Field(ge=4, description="d_H")
    hfa_heads: int = Field(ge=1)
    hfa_token_specific: bool = Field(description="false: one shared projection and FFN, a plain Transformer (Table 3)")
    gfa_layers: int = Field(ge=0)
    gfa_dim: int = Field(ge=4, description="d_G")
    gfa_tokens: int = Field(ge=1, description="m, composite tokens")
    gfa_heads: int = Field(ge=1)
    ffn_multiple: int = Field(ge=1, description="hidden width of every FFN, as a multiple of its input")
    expert_dim: int = Field(ge=4)
    residual: bool = Field(description="pre-norm and residuals, which the paper leaves open")
    dref: bool = Field(description="domain-routed expert fusion (Table 4); false: the shared expert alone")
    dapga: bool = Field(description="domain-aware personalised gated attention (Table 4)")

    @model_validator(mode="after")
    def _heads_divide_widths(self) -> "HHSFTConfig":
        for width, heads in ((self.hfa_dim, self.hfa_heads), (self.gfa_dim, self.gfa_heads)):
            if width % heads:
                raise ValueError(f"{heads} heads do not divide a width of {width}")
        return self


class ESTConfig(Section):
    """EST (est.txt 5); the switches are the ablations of its Tables 1, 2 and 4."""

    layers: int = Field(ge=1, description="S")
    dim: int = Field(ge=4, description="d")
    heads: int = Field(ge=1)
    ffn_multiple: int = Field(ge=1, description="hidden width of the SwiGLU FFNs, as a multiple of d")
    head_hidden: list[int] = Field(min_length=1, description="widths of the read-out MLP before the logits")
    user_behaviours: int = Field(ge=1, description="B_u: the newest behaviours, once a request (paper: 300)")
    candidate_behaviours: int = Field(ge=1, description="B_c: behaviours searched for each candidate (paper: 50)")
    attention: Literal["lca", "full"] = Field(description="full: self-attention over [B, N] (Tables 1 and 4)")
    masked_blocks: list[Literal["BB", "BN", "NB", "NN"]] = Field(
        description="blocks <query, key> that full attention leaves out (Table 1)"
    )
    csa: bool = Field(description="content sparse attention among behaviours (Table 4)")
    csa_neighbours: int = Field(ge=1, description="K of CSA (paper: 5)")
    content: list[Literal["simtier", "side_information", "semantic_id"]] = Field(
        description="how content enters the tokens (Table 2); an empty list is the ID-based model"
    )
    simtier_tiers: int = Field(ge=2)
    semantic_levels: int = Field(ge=1, description="semantic ids an item")
    semantic_codes: int = Field(ge=2, description="values of a semantic id")

    @model_validator(mode="after")
    def _consistent(self) -> "ESTConfig":
        if self.dim % self.heads:
            raise ValueError(f"{self.heads} heads do not divide a width of {self.dim}")
        if self.attention == "full" and self.csa:
            raise ValueError("full attention takes the place of CSA: set csa to false with it")
        if self.attention == "lca" and self.masked_blocks:
            raise ValueError(f"masked_blocks {self.masked_blocks} are of full attention: set attention to full")
        return self


class MDLConfig(Section):
    """MDL (mdl.txt 3); the switches are the ablations of its Table 2."""

    layers: int = Field(ge=1, description="L")
    dim: int = Field(ge=4, description="width of every token; a multiple of the number of feature tokens")
    heads: int = Field(ge=1, description="of the domain-aware attention")
    ffn_multiple: int = Field(ge=1, description="hidden width of every FFN, as a multiple of its input")
    important: list[str] = Field(
        description="id features with embeddings of their own for scenario and for task tokens; absent ones left out"
    )
    task_token: bool = Field(description="false: task towers instead")
    task_feature_interaction: bool = Field(description="false: token mixing instead of domain-aware attention")
    scenario_token: bool = Field(description="false: scenario towers instead")
    global_scenario_token: bool
    scenario_feature_interaction: bool = Field(description="false: token mixing instead of domain-aware attention")
    literal_eq6: bool = Field(description="true: TokenMixing(T + T), as eq. 6 is printed; false: TokenMixing(T) + T")

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "MDLConfig":
        if self.dim % self.heads:
            raise ValueError(f"{self.heads} heads do not divide a width of {self.dim}")
        return self


class DLRMConfig(Section):
    """DLRM-MLP, the paper's base model, with a chosen sequence encoder."""

    hidden: list[int] = Field(min_length=1, description="widths of the layers before the head")


class DCNv2Config(Section):
    """DCN-V2 (Wang et al. 2021)."""

    layers: int = Field(ge=1, description="cross layers")
    rank: int = Field(ge=0, description="of a cross layer's matrix; 0: full")
    structure: Literal["stacked", "parallel"] = Field(description="the deep net after the cross layers or beside them")
    hidden: list[int] = Field(min_length=1, description="widths of the deep net")


def _divides(parts: int, width: int, what: str) -> None:
    if width % parts:
        raise ValueError(f"{parts} {what} do not divide a width of {width}")


class AttentionConfig(Section):
    """Layers of multi-head attention of one width: AutoInt (Song et al. 2019)."""

    layers: int = Field(ge=1)
    dim: int = Field(ge=4, description="width of a token")
    heads: int = Field(ge=1)

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        _divides(self.heads, self.dim, "heads")
        return self


class TransformerConfig(AttentionConfig):
    """Transformer encoder: self-attention over the history (Vaswani et al. 2017), then target attention."""

    ffn_multiple: int = Field(ge=1, description="hidden width of the FFN, as a multiple of dim")


class HiFormerConfig(TransformerConfig):
    """HiFormer (Gui et al. 2023)."""

    rank: int = Field(ge=1, description="of a head's composite projection")


class LongerConfig(TransformerConfig):
    """LONGER (Chai et al. 2025); the first of its layers is the cross-causal one."""

    merge: int = Field(ge=1, description="K, adjacent behaviours in one token")
    recent: int = Field(ge=1, description="k, newest merged tokens that stay queries after the first layer")


class StackDINConfig(Section):
    """DIN layers on top of each other."""

    layers: int = Field(ge=1)


class WukongConfig(Section):
    """Wukong (Zhang et al. 2024)."""

    layers: int = Field(ge=1)
    dim: int = Field(ge=4, description="width of an embedding")
    fm_tokens: int = Field(ge=1, description="n_F, embeddings from the factorization machine block")
    lcb_tokens: int = Field(ge=1, description="n_L, embeddings from the linear compression block")
    rank: int = Field(ge=1, description="k, columns of Y")
    hidden: int = Field(ge=1, description="hidden width of the factorization machine block's MLP")


class RankMixerConfig(Section):
    """RankMixer (Zhu et al. 2025)."""

    layers: int = Field(ge=1)
    tokens: int = Field(ge=2, description="T, also the heads of token mixing")
    dim: int = Field(ge=4, description="D, width of a token")
    ffn_multiple: int = Field(ge=1, description="hidden width of a token's FFN, as a multiple of dim")
    experts: int = Field(ge=0, description="of a token's sparse FFN, which share its hidden width; 0: dense")

    @model_validator(mode="after")
    def _parts_divide_widths(self) -> Self:
        _divides(self.tokens, self.dim, "tokens")
        _divides(self.experts or 1, self.ffn_multiple * self.dim, "experts")
        return self


class HeadsConfig(Section):
    """Sizes of the heads over domains and tasks."""

    expert_hidden: list[int] = Field(min_length=1, description="widths of an expert, and of the shared bottom")
    experts: int = Field(ge=1, description="shared experts; in PLE also those of each task")
    ple_layers: int = Field(ge=1, description="extraction layers of PLE")
    tower_hidden: list[int] = Field(min_length=1, description="widths of a task's tower before its logit")
    gate_hidden: int = Field(ge=1, description="hidden width of PEPNet's gates")


class OneTransConfig(Section):
    """OneTrans and its forms D and F (3.2 to 3.4); the switches are the ablations of its table in 4.3."""

    layers: int = Field(ge=1)
    dim: int = Field(ge=4, description="d")
    heads: int = Field(ge=1)
    ffn_multiple: int = Field(ge=1, description="hidden width of every FFN, as a multiple of d")
    tokenizer: Literal["auto_split", "group_wise"]
    ns_tokens: int = Field(ge=1, description="L_NS of the auto-split tokenizer; group-wise has one a semantic block")
    fusion: Literal["timestamp_aware", "timestamp_agnostic"]
    behaviour_order: list[str] = Field(min_length=1, description="event types, the strongest sign of intent first")
    sep: bool = Field(description="a learnt [SEP] between the sequences of timestamp-agnostic fusion")
    pyramid: bool = Field(description="false: every block keeps all S-tokens")
    pyramid_multiple: int = Field(ge=1, description="L of the middle blocks is rounded to a multiple of this")
    mixed: bool = Field(description="false: NS-tokens share the S-tokens' weights")
    causal: bool = Field(description="false: full attention, a copy of the history a candidate, no cache")
    candidate_behaviours: int = Field(ge=1, description="K, behaviours of the candidate-specific sequence")

    @model_validator(mode="after")
    def _heads_have_even_widths(self) -> "OneTransConfig":
        if self.dim % (2 * self.heads):
            raise ValueError(
                f"{self.heads} heads do not divide a width of {self.dim} into even parts (rotary positions)"
            )
        return self


class MTGRConfig(Section):
    """MTGR (Han et al. 2025)."""

    layers: int = Field(ge=1)
    dim: int = Field(ge=4, description="d")
    heads: int = Field(ge=1)
    candidate_behaviours: int = Field(ge=1, description="K, behaviours of the candidate-specific sequence")

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "MTGRConfig":
        if self.dim % self.heads:
            raise ValueError(f"{self.heads} heads do not divide a width of {self.dim}")
        return self


class ModelConfig(Section):
    """Which model, and the sizes of each."""

    name: ModelName
    champion: ModelName = Field(description="the model trained as first champion when the registry has none")
    unread: dict[ModelName, list[ViewName]] = Field(
        description="entry: feature views of features/store/README.md that it does not read, nor the service for it"
    )
    embedding_dim: int = Field(ge=2)
    table_rows: int = Field(ge=16, description="rows of every id table; ids are taken modulo")
    encoder: EncoderName = Field(description="of the behaviours; unified models read them themselves")
    head: HeadName = Field(description="over domains and tasks; hhsft, mdl and unified models bring their own")
    dropout: float = Field(ge=0, lt=1)
    simtier_tiers: int = Field(ge=0, description="SimTier histogram among the cross features, not in est; 0: none")
    hhsft: HHSFTConfig
    dlrm_mlp: DLRMConfig
    est: ESTConfig
    mdl: MDLConfig
    dcnv2: DCNv2Config
    autoint: AttentionConfig
    hiformer: HiFormerConfig
    wukong: WukongConfig
    rankmixer: RankMixerConfig
    stackdin: StackDINConfig
    transformer: TransformerConfig
    longer: LongerConfig
    heads: HeadsConfig
    onetrans: OneTransConfig
    mtgr: MTGRConfig
