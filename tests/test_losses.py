"""Losses against numbers worked out by hand."""

import math

import torch

from vlmpack.losses import bradley_terry, dpo

PAIRS = torch.tensor([[0, 1], [2, 1]])


def log_sigmoid(x: float) -> float:
    return -math.log(1 + math.exp(-x))


def test_dpo_is_minus_log_sigmoid_of_beta_times_the_difference_of_log_ratios():
    policy, reference = torch.tensor([-3.0, -5.0, -4.0]), torch.tensor([-4.0, -4.0, -4.5])
    loss = dpo(policy, reference, PAIRS, beta=0.5)  # log ratios 1, -1, 0.5
    torch.testing.assert_close(loss, torch.tensor([-log_sigmoid(0.5 * 2), -log_sigmoid(0.5 * 1.5)]))


def test_dpo_is_log_2_where_policy_and_reference_agree():
    logps = torch.tensor([-3.0, -5.0, -4.0])
    torch.testing.assert_close(dpo(logps, logps, PAIRS), torch.full((2,), math.log(2)))


def test_label_smoothing_mixes_in_the_flipped_pair():
    policy, reference = torch.tensor([-3.0, -5.0, -4.0]), torch.tensor([-4.0, -4.0, -4.5])
    loss = dpo(policy, reference, PAIRS[:1], beta=0.5, label_smoothing=0.2)
    torch.testing.assert_close(loss, torch.tensor([-0.8 * log_sigmoid(1.0) - 0.2 * log_sigmoid(-1.0)]))


def test_the_dpo_gradient_pushes_preferred_up_and_rejected_down_by_the_same_amount():
    policy = torch.tensor([-3.0, -5.0], requires_grad=True)
    dpo(policy, torch.tensor([-3.0, -5.0]), torch.tensor([[0, 1]]), beta=0.5).sum().backward()
    torch.testing.assert_close(policy.grad, torch.tensor([-0.25, 0.25]))  # beta * sigmoid(0)


def test_bradley_terry_is_minus_log_sigmoid_of_the_difference_less_the_margin():
    rewards = torch.tensor([1.5, 0.5, 2.0])
    torch.testing.assert_close(bradley_terry(rewards, PAIRS), torch.tensor([-log_sigmoid(1.0), -log_sigmoid(1.5)]))
    with_margin = bradley_terry(rewards, PAIRS, margin=torch.tensor([0.25, 1.0]))
    torch.testing.assert_close(with_margin, torch.tensor([-log_sigmoid(0.75), -log_sigmoid(0.5)]))


def test_losses_stay_finite_far_from_zero():
    rewards = torch.tensor([-1e4, 1e4], requires_grad=True)
    loss = bradley_terry(rewards, torch.tensor([[0, 1]]))
    loss.sum().backward()
    assert loss.item() == 2e4
    assert rewards.grad.tolist() == [-1.0, 1.0]
