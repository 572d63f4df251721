"""Keys of config.json that do not change the results of a model. A family that uses one has it in its own table."""

DESCRIPTION = """
    model_type architectures transformers_version name_or_path _name_or_path _commit_hash dtype torch_dtype use_cache
    return_dict output_hidden_states output_attentions _output_attentions tie_last_hidden_states tokenizer_class prefix
    attn_implementation _attn_implementation _attn_implementation_internal _attn_implementation_autoset
    experts_implementation _experts_implementation _experts_implementation_internal _post_init_done is_decoder
    id2label label2id num_labels _num_labels problem_type task_specific_params finetuning_task torchscript use_bfloat16
    tf_legacy_loss gradient_checkpointing output_past cross_attention_hidden_size transformers.js_config
    unsloth_version unsloth_fixed model_max_length max_sequence_length n_ctx is_llama_config memgpt
"""
SAME_RESULT = "chunk_size_feed_forward pretraining_tp reorder_and_upcast_attn"
"""Settings that change only the order of sums."""
STATES = "mem_len reuse_len use_mems use_mems_eval use_mems_train"
"""Settings of XLNet's cache between calls, which this library does not have."""
TRAINING = """
    initializer_range initializer_factor attention_dropout hidden_dropout hidden_dropout_prob classifier_dropout
    attention_probs_dropout_prob attn_pdrop embd_pdrop resid_pdrop dropout dropout_rate init_std activation_dropout
    encoder_layerdrop decoder_layerdrop apply_spec_augment mask_feature_length mask_feature_min_masks mask_feature_prob
    mask_time_length mask_time_min_masks mask_time_prob
"""
TOKENS = """
    bos_token_id eos_token_id pad_token_id sep_token_id cls_token_id unk_token_id mask_token_id decoder_start_token_id
    bos_token eos_token pad_token unk_token
"""
GENERATION = """
    assistant_confidence_threshold assistant_lookbehind bad_words_ids begin_suppress_tokens diversity_penalty do_sample
    early_stopping encoder_no_repeat_ngram_size encoder_repetition_penalty epsilon_cutoff eta_cutoff length_penalty
    exponential_decay_length_penalty forced_bos_token_id forced_eos_token_id max_length max_new_tokens min_length
    min_new_tokens min_p no_repeat_ngram_size num_assistant_tokens num_assistant_tokens_schedule num_beam_groups
    num_beams num_return_sequences output_scores remove_invalid_values repetition_penalty return_dict_in_generate
    suppress_tokens forced_decoder_ids median_filter_width target_lookbehind temperature top_k top_p typical_p
"""
HEADS = """
    summary_type summary_use_proj summary_activation summary_proj_to_labels summary_first_dropout summary_last_dropout
    start_n_top end_n_top directionality pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers
    pooler_size_per_head pooler_type encoder_stride classifier_proj_size
"""
"""Settings of heads that are not read."""

HARMLESS = frozenset(" ".join((DESCRIPTION, SAME_RESULT, STATES, TRAINING, TOKENS, GENERATION, HEADS)).split())
