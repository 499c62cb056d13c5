"""Mixup and cutmix: against their definitions, pair by pair."""

import numpy as np
import pytest
import torch

from mixerkit.data.draws import uniforms
from mixerkit.data.mixing import Place, cutmix_box, mix, one_hot, partners
from mixerkit.spec.recipe import Augment

SIDE = 10


def batch(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Image b is b everywhere and of class b, so that shares can be read off."""
    values = torch.arange(count, dtype=torch.float32)
    return values[:, None, None, None].expand(count, 2, SIDE, SIDE), torch.eye(count)


def whole(count: int, first: int = 0) -> Place:
    """All images of a batch are at hand."""
    return Place(count, first, np.arange(count), count)


def partner(b: int, count: int, group: int) -> int:
    """The image before, in the group; the first has the last."""
    if group == 1:
        return (b - 1) % count
    start = b // group * group
    size = min(group, count - start)
    return start + (b - start - 1) % size


@pytest.mark.parametrize("group", [0, 1, 2, 4, 5])
def test_mixup_mixes_images_and_targets_with_the_same_share(group):
    images, targets = batch(8)
    mixed, soft = mix(images, targets, Augment(mixup=0.4, mix_group=group), 1, 2, whole(8, 16))
    shares = []
    for b in range(8):
        other = partner(b, 8, group or 8)
        share = soft[b, b].item()
        shares.append(share)
        assert 0.5 <= share <= 1
        torch.testing.assert_close(mixed[b], images[b] * share + images[other] * (1 - share))
        torch.testing.assert_close(soft[b], targets[b] * share + targets[other] * (1 - share))
    groups = [b // (group or 8) for b in range(8)]
    assert len(set(shares)) == len(set(groups))


def test_cutmix_targets_have_the_share_of_the_pixels():
    images, targets = batch(6)
    seen = set()
    for epoch in range(30):
        mixed, soft = mix(images, targets, Augment(cutmix=1.0), 0, epoch, whole(6))
        for b in range(6):
            other = partner(b, 6, 6)
            own = mixed[b, 0] == b
            assert torch.equal(mixed[b, 0], torch.where(own, float(b), float(other)))
            assert torch.equal(mixed[b, 0], mixed[b, 1])
            assert soft[b, b].item() == pytest.approx(own.float().mean().item())
            assert soft[b].sum().item() == pytest.approx(1)
        filled = ~own
        rows, columns = filled.any(1).nonzero(), filled.any(0).nonzero()
        assert filled.sum() == len(rows) * len(columns)  # one box
        seen.add(int(filled.sum()))
    assert len(seen) > 10


def test_cutmix_box_is_a_times_the_area_when_it_fits():
    for draw in uniforms(0, 0, np.arange(200), 5):
        rows, columns = cutmix_box(1.0, draw, 100, 200)
        assert 0 <= rows.start <= rows.stop <= 100 and 0 <= columns.start <= columns.stop <= 200
        if rows.start and rows.stop < 100 and columns.start and columns.stop < 200:
            height, width = rows.stop - rows.start, columns.stop - columns.start
            assert abs(width - 2 * height) <= 2


def test_both_are_drawn_by_a_coin_and_left_out_as_often_as_asked():
    images, targets = batch(4)
    augment = Augment(mixup=1.0, cutmix=1.0, mix_probability=0.5)
    kinds = {"none": 0, "mixup": 0, "cutmix": 0}
    for epoch in range(400):
        mixed, soft = mix(images, targets, augment, 0, epoch, whole(4))
        is_same = torch.equal(mixed, images)
        blended = not torch.equal(mixed, mixed.round())
        kinds["none" if is_same else "mixup" if blended else "cutmix"] += 1
        assert is_same == torch.equal(soft, targets)
    assert 160 < kinds["none"] < 240 and min(kinds["mixup"], kinds["cutmix"]) > 70


def test_a_group_is_mixed_the_same_whatever_batch_it_is_in():
    images, targets = batch(8)
    augment = Augment(mixup=0.4, cutmix=1.0, mix_group=4)
    all_of_it, soft = mix(images, targets, augment, 5, 6, whole(8, 24))
    for start in (0, 4):
        part = slice(start, start + 4)
        place = whole(4, 24 + start)
        alone, alone_soft = mix(images[part], targets[part], augment, 5, 6, place)
        assert torch.equal(alone, all_of_it[part]) and torch.equal(alone_soft, soft[part])


@pytest.mark.parametrize("group", [0, 1, 3, 4, 5, 8])
@pytest.mark.parametrize("parts", [1, 2, 4, 8])
def test_parts_of_a_batch_are_mixed_as_the_whole(group, parts):
    images, targets = batch(8)
    augment = Augment(mixup=0.4, cutmix=1.0, mix_group=group)
    all_of_it, soft = mix(images, targets, augment, 5, 6, whole(8, 24))
    for own in np.split(np.arange(8), parts):
        others = np.setdiff1d(partners(own, 8, augment), own)
        assert len(others) <= 2
        positions = np.concatenate([own, others])
        place = Place(8, 24, positions, len(own))
        part, part_soft = mix(images[positions], targets[positions], augment, 5, 6, place)
        assert torch.equal(part, all_of_it[own]) and torch.equal(part_soft, soft[own])


@pytest.mark.parametrize("group", [0, 1, 4])
def test_an_image_without_its_partner_stays_and_all_others_are_as_ever(group):
    images, targets = batch(8)
    augment = Augment(mixup=0.4, mix_group=group)
    all_of_it, _ = mix(images, targets, augment, 5, 6, whole(8))
    here = np.array([0, 1, 2, 4, 5, 6, 7])  # the fourth is broken
    place = Place(8, 0, here, 7)
    mixed, soft = mix(images[here], targets[here], augment, 5, 6, place)
    for row, b in enumerate(here):
        alone = partner(b, 8, group or 8) == 3
        assert torch.equal(mixed[row], images[b] if alone else all_of_it[b])
        assert not alone or torch.equal(soft[row], targets[b])
    assert [partner(b, 8, group or 8) for b in here].count(3) == 1


def test_nothing_is_needed_besides_where_nothing_is_mixed():
    assert len(partners(np.arange(4), 8, Augment())) == 0
    images, targets = batch(4)
    place = Place(8, 0, np.arange(4), 2)
    assert torch.equal(mix(images, targets, Augment(), 0, 0, place)[0], images[:2])


def test_one_hot():
    assert one_hot(np.array([2, 0]), 3).tolist() == [[0, 0, 1], [1, 0, 0]]
