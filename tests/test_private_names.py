"""Which private names of transformers and torch are used, each with the reason why no public one does it."""

import ast

from test_architecture import FILES

PRIVATE = {
    # transformers, models
    "_attn_implementation": "the attention that a model is set to; there is a public setter and no getter",
    "_supports_sdpa": "whether SDPA may be set; set_attn_implementation raises where it may not, after changing others",
    "_no_split_modules": "what device maps and FSDP must keep whole; a wrapper hands on its backbone's",
    # transformers, Trainer: methods that subclasses replace
    "_save_checkpoint": "when a checkpoint is written, which is sealed after it",
    "_get_output_dir": "where it is written, hyperparameter search included",
    "_push_from_checkpoint": "its upload, which waits until it is whole",
    "_get_num_items_in_batch": "what a whole optimizer step's loss is divided by",
    "_wrap_model": "how the model is prepared when evaluation comes before training",
    "_load_from_checkpoint": "how weights are read on resume; transformers issue 43701",
    "_load_best_model": "likewise, at the end",
    # datasets
    "_fingerprint": "what a data set holds, by which its lengths are found again; the documented name, and no other",
    # accelerate
    "_models": "whether a model was prepared already; the trainer itself asks so",
    # torch
    "_flash_attention_backward": "FlashAttention's gradients given the merged output and log-sum-exp, which autograd lacks",
    "_flash_attn_varlen_backward": "likewise, of the flash-attn package",
    "_version": "how often a tensor was written in place, by which stale features are told; no public count",
    "_orig_mod": "the module inside a compiled one; torch.compile has no public way back",
}


def accessed(tree: ast.AST) -> set[str]:
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    read = [call.args[1] for call in calls if call.func.id in ("getattr", "hasattr", "setattr") and len(call.args) > 1]
    names |= {name.value for name in read if isinstance(name, ast.Constant)}
    return {name for name in names if name.startswith("_") and not name.startswith("__")}


def defined(tree: ast.AST) -> set[str]:
    """Names of our own: functions, classes, fields, and what is assigned on self."""
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name):
            names |= {node.attr} if node.value.id == "self" else set()
    return names


def test_private_names_are_used_with_a_reason_or_not_at_all():
    trees = [ast.parse(path.read_text()) for path in FILES]
    replaced = {name for name in PRIVATE if name in set().union(*map(defined, trees))}
    used = set().union(*map(accessed, trees)) - (set().union(*map(defined, trees)) - replaced)
    assert used | replaced == set(PRIVATE)
