"""Sizes of the tiny models: configuration fields that families share, and those of single families."""

from typing import Any

WIDTH, LAYERS, HEADS, HEAD_DIM, VOCAB, EXPERTS, TOP_K = 32, 4, 4, 8, 97, 8, 2
STD = WIDTH**-0.5
"""Standard deviation of the weights: a product with it keeps the variance of its input."""

COMMON: dict[str, Any] = {
    # sizes
    "vocab_size": VOCAB,
    "unpadded_vocab_size": VOCAB,
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "max_position_embeddings": 64,
    "initializer_range": STD,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    # routed and shared experts
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), EXPERTS),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "moe_k", "top_k_experts"), TOP_K),
    **dict.fromkeys(("n_shared_experts", "num_shared_experts", "moe_num_shared_experts"), 1),
    "moe_intermediate_size": 24,
    "shared_intermediate_size": 24,
    "shared_expert_intermediate_size": 24,
    "shared_experts_intermediate_size": 24,
    "moe_shared_expert_intermediate_size": 24,
    "n_group": 2,
    "topk_group": 1,
    # the first layer is dense where that can be said
    **dict.fromkeys(("first_k_dense_replace", "num_dense_layers", "moe_layer_start_index"), 1),
    # attention
    "num_attention_heads": HEADS,
    "num_key_value_heads": HEADS,
    "head_dim": HEAD_DIM,
    "swa_num_attention_heads": HEADS,
    "swa_num_key_value_heads": HEADS,
    "swa_head_dim": HEAD_DIM,
    "qk_rope_head_dim": HEAD_DIM,
    "qk_nope_head_dim": HEAD_DIM,
    "v_head_dim": HEAD_DIM,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "o_lora_rank": 16,
    "o_groups": 2,
    "index_n_heads": 2,
    "index_head_dim": 16,
    "index_topk": 8,
    "sliding_window": 16,
    "sliding_window_size": 16,
    "attention_chunk_size": 16,
    "rel_extent": 64,
    # linear attention, state space and convolution
    "linear_num_heads": HEADS,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": HEADS,
    "linear_head_dim": HEAD_DIM,
    "linear_key_head_dim": HEAD_DIM,
    "linear_value_head_dim": HEAD_DIM,
    "mamba_n_heads": HEADS,
    "mamba_num_heads": HEADS,
    "mamba_d_head": 16,
    "mamba_head_dim": 16,
    "mamba_d_state": 8,
    "ssm_state_size": 8,
    "mamba_n_groups": 1,
    "n_groups": 1,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "mamba_dt_rank": 8,
    "mamba_chunk_size": 8,
    "use_mamba_kernels": False,
    "conv_L_cache": 3,
}
"""Fields of every family that declares them."""

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
    "zaya": {"router_hidden_size": 16, "num_experts_per_tok": 1},
}
"""Fields of single families, over the common ones."""
