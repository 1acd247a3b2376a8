"""Sizes of the tiny models: configuration fields that families share, and those of single families."""

from typing import Any

WIDTH, LAYERS, HEADS, HEAD_DIM, VOCAB, EXPERTS, TOP_K = 32, 4, 4, 8, 97, 8, 2
STD = WIDTH**-0.5
"""Standard deviation of the weights: a product with it keeps the variance of its input."""

_BY_VALUE: tuple[tuple[Any, str], ...] = (
    # sizes
    (VOCAB, "vocab_size unpadded_vocab_size"),
    (WIDTH, "hidden_size"),
    (48, "intermediate_size"),
    (LAYERS, "num_hidden_layers"),
    (64, "max_position_embeddings"),
    (STD, "initializer_range"),
    (False, "tie_word_embeddings use_mamba_kernels"),
    (0, "pad_token_id"),
    (1, "bos_token_id"),
    (2, "eos_token_id"),
    # routed and shared experts; the first layer is dense where that can be said
    (EXPERTS, "num_experts num_local_experts n_routed_experts moe_num_experts"),
    (TOP_K, "num_experts_per_tok moe_topk moe_k top_k_experts"),
    (1, "n_shared_experts num_shared_experts moe_num_shared_experts"),
    (24, "moe_intermediate_size shared_intermediate_size shared_expert_intermediate_size"),
    (24, "shared_experts_intermediate_size moe_shared_expert_intermediate_size"),
    (2, "n_group"),
    (1, "topk_group first_k_dense_replace num_dense_layers moe_layer_start_index"),
    # attention
    (HEADS, "num_attention_heads num_key_value_heads swa_num_attention_heads swa_num_key_value_heads"),
    (HEAD_DIM, "head_dim swa_head_dim qk_rope_head_dim qk_nope_head_dim v_head_dim"),
    (16, "q_lora_rank kv_lora_rank o_lora_rank index_head_dim sliding_window sliding_window_size attention_chunk_size"),
    (2, "o_groups index_n_heads"),
    (8, "index_topk"),
    (64, "rel_extent"),
    # linear attention, state space and convolution
    (HEADS, "linear_num_heads linear_num_value_heads mamba_n_heads mamba_num_heads"),
    (HEAD_DIM, "linear_head_dim linear_key_head_dim linear_value_head_dim"),
    (2, "linear_num_key_heads mamba_expand"),
    (16, "mamba_d_head mamba_head_dim"),
    (8, "mamba_d_state ssm_state_size mamba_dt_rank mamba_chunk_size"),
    (1, "mamba_n_groups n_groups"),
    (4, "mamba_d_conv"),
    (3, "conv_L_cache"),
)
COMMON: dict[str, Any] = {name: value for value, names in _BY_VALUE for name in names.split()}
"""Fields of every family that declares them."""

VISION: dict[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "depth": 1,
    "num_heads": HEADS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": HEADS,
    "head_dim": HEAD_DIM,
    "global_head_dim": HEAD_DIM,
    "patch_size": 4,
    "image_size": 16,
    "out_hidden_size": WIDTH,
    "num_position_embeddings": 16,
    "deepstack_visual_indexes": [0],
    "vision_output_dim": WIDTH,
    "projector_input_dim": WIDTH,
    "projector_output_dim": WIDTH,
    "position_embedding_size": 16,
}
"""Fields of the part that sees, of whole models for images and text."""

WHOLE = ("gemma4", "llama4", "qwen3_5_moe", "qwen3_vl_moe")
"""Whole models for images and text that are built, their text part an MoE."""

UNUSUAL: dict[str, dict[str, Any]] = {
    "bailing_hybrid": {"layer_types": ["linear_attention", "full_attention"] * 2},
    "beam": {"mlp_layer_types": ["dense", "sparse", "sparse", "sparse"]},
    "dbrx": {
        "d_model": WIDTH,
        "n_heads": HEADS,
        "n_layers": 3,
        "max_seq_len": 64,
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 1e4},
        "ffn_config": {
            "hidden_size": WIDTH,
            "ffn_hidden_size": 24,
            "moe_num_experts": EXPERTS,
            "moe_top_k": TOP_K,
            "ffn_act_fn": {"name": "silu"},
        },
    },
    "deepseek_v4": {"num_key_value_heads": 1, "mlp_layer_types": ["hash_moe", "moe", "moe", "moe"]},
    "doge": {"is_moe": True, "num_experts": 16, "num_experts_per_tok": 4},
    "dots3_note_text": {"layer_types": ["full_attention"] * LAYERS},
    "flint": {"mlp_only_layers": [0]},
    "gemma4_text": {
        "enable_moe_block": True,
        "hidden_size_per_layer_input": 0,
        "layer_types": ["sliding_attention"] * 3 + ["full_attention"],
    },
    "granitemoehybrid": {"layer_types": ["mamba", "attention"] * 2},
    "jamba": {"expert_layer_period": 2, "expert_layer_offset": 1, "attn_layer_period": 2, "attn_layer_offset": 1},
    "jetmoe": {"kv_channels": HEAD_DIM, "activation_function": "silu"},
    "kimi_linear": {"layer_types": ["linear_attention", "full_attention"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "llama4_text": {"intermediate_size_mlp": 48, "interleave_moe_layer_step": 1, "num_experts_per_tok": 1},
    "longcat_flash": {"num_layers": 3, "ffn_hidden_size": 48, "expert_ffn_hidden_size": 24, "zero_expert_num": 4},
    "mimo_v2_flash": {"num_key_value_heads": 2},  # doubled in layers with a sliding window
    "minimax": {"layer_types": ["linear_attention", "full_attention"] * 2, "block_size": 16},
    "nemotron_h": {"layers_block_type": ["mamba", "moe", "attention", "moe"]},
    "qwen4_exp_text": {
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": HEAD_DIM,
        "indexer_budget": 16,
        "indexer_compress_ratio": 4,
        "hc_lowrank": 8,
        "hc_count": 2,
    },
    "nllb-moe": {
        "d_model": WIDTH,
        **dict.fromkeys(("encoder_layers", "decoder_layers"), LAYERS),
        **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), HEADS),
        **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 48),
        **dict.fromkeys(("encoder_sparse_step", "decoder_sparse_step"), 2),
    },
    "switch_transformers": {
        "d_model": WIDTH,
        "d_kv": HEAD_DIM,
        "d_ff": 48,
        "num_heads": HEADS,
        **dict.fromkeys(("num_layers", "num_decoder_layers"), LAYERS),
        **dict.fromkeys(("num_sparse_encoder_layers", "num_sparse_decoder_layers"), 2),
    },
    "zaya": {"router_hidden_size": 16, "num_experts_per_tok": 1},
}
"""Fields of single families, over the common ones."""
