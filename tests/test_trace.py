"""A trace holds what a decoder computed for each token, stage by stage, and leaves no hook behind."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_layout import paths
from tiny import llama, picture, samples, woven
from transformers import AutoConfig

import vlmpack
from vlmpack.proof.miniature import build, miniature
from vlmpack.proof.trace import path_of, traced


@settings(deadline=None, max_examples=30, derandomize=True)
@given(st.data())
def test_the_path_of_a_response_leads_from_the_root_to_its_last_token(data):
    made = data.draw(samples(images=False))
    (pack,) = vlmpack.pack(made)
    walked = paths(pack.forest)
    for response, end in enumerate(pack.ends.tolist()):
        path = path_of(pack, response)
        assert path.tolist() == walked[end]


def test_a_response_that_another_one_continues_ends_where_it_ends():
    (pack,) = vlmpack.pack([woven([1, picture(1)], [[3, 4], [3], [3, 4, 5]], [(0, 1)])])
    assert [path_of(pack, response).tolist()[5:] for response in range(3)] == [[5, 6], [5], [5, 6, 7]]


def test_states_are_the_embeddings_then_what_each_layer_returns():
    model = llama()
    ids = torch.tensor([[1, 2, 3, 4]])
    with traced(model.model) as traces:
        model(input_ids=ids)
        model(input_ids=ids[:, :2])
    hidden = model(input_ids=ids, output_hidden_states=True).hidden_states
    assert [len(trace.states) for trace in traces] == [3, 3]
    assert [trace.states[0].shape for trace in traces] == [(4, 16), (2, 16)]
    for place in (0, 1):  # transformers norms the last one
        assert torch.equal(traces[0].states[place], hidden[place][0])
    assert torch.equal(model.model.norm(traces[0].states[2]), hidden[2][0])
    assert not any(state.requires_grad for state in traces[0].states)


def test_angles_are_cosines_and_sines_of_each_token():
    model = llama()
    with traced(model.model) as (traces):
        model(input_ids=torch.tensor([[1, 2, 3]]), position_ids=torch.tensor([[0, 5, 5]]))
    cosines, sines = model.model.rotary_emb(torch.zeros(1, dtype=torch.float64), torch.tensor([[0, 5, 5]]))
    torch.testing.assert_close(traces[0].angles, torch.cat([cosines[0], sines[0]], dim=1).to(traces[0].angles.dtype))
    assert torch.equal(traces[0].angles[1], traces[0].angles[2])


def test_nothing_is_watched_afterwards_not_even_after_an_error():
    model = llama()
    with pytest.raises(ZeroDivisionError), traced(model.model) as traces:
        _ = 1 / 0
    model(input_ids=torch.tensor([[1, 2]]))
    assert traces == []


@pytest.mark.parametrize("model_type", ["qwen2_5_vl", "gemma3", "gpt2"])
def test_angles_are_one_row_a_token_whatever_axes_of_position_there_are(model_type):
    model = build(miniature(AutoConfig.for_model(model_type)))
    with torch.no_grad(), traced(model.get_decoder()) as traces:
        model(input_ids=torch.tensor([[1, 2, 3]]))
    assert len(traces[0].states) == 1 + model.get_decoder().config.num_hidden_layers
    assert (traces[0].angles is None) == (model_type == "gpt2")
    assert traces[0].angles is None or len(traces[0].angles) == 3
