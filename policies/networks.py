"""Policy networks: an MLP and an entity-attention network behind one interface.

Both read the same observation vector; the attention network cuts it into one token per entity. Normalisation is part of
the network, so that what is exported is what was trained.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from horseshoe import tokens as seen

ARCHITECTURES = ("mlp", "attention")


class Normaliser(nn.Module):
    """Running mean and variance of its input, frozen outside `update`."""

    mean: torch.Tensor
    var: torch.Tensor
    count: torch.Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("var", torch.ones(size))
        self.register_buffer("count", torch.tensor(1e-4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise (..., size) and clip at ten standard deviations."""
        return torch.clamp((x - self.mean) / torch.sqrt(self.var + 1e-5), -10.0, 10.0)

    @torch.no_grad()
    def update(self, x: torch.Tensor, gather: Callable[[Any], list[Any]] = lambda own: [own]) -> None:
        """Take in samples (n, size) (Chan et al., parallel variance); `gather` adds the moments of other processes."""
        for count, mean, var in gather((float(len(x)), x.mean(0), x.var(0, unbiased=False))):
            total = self.count + count
            delta = mean - self.mean
            self.var.copy_((self.var * self.count + var * count + delta**2 * self.count * count / total) / total)
            self.mean.add_(delta * count / total)
            self.count.copy_(total)


def mlp(sizes: Sequence[int]) -> nn.Sequential:
    """Linear layers of the given sizes, each followed by ELU."""
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ELU()]
    return nn.Sequential(*layers)


class Glance(nn.Module):
    """Attention of one entity to all, then two layers for itself.

    Keys and values are never computed: with one query, the key's weights can be applied to the query and the value's to
    the mean that it found, which costs a tenth where there are twenty entities.

    Args:
        width: of a token.
        heads: attention heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width, bias=k == 0) for k in range(3))
        self.mix = nn.Linear(width, width)
        self.own = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, own: torch.Tensor, tokens: torch.Tensor, absent: torch.Tensor | None) -> torch.Tensor:
        """Own token (n, width), all tokens (n, k, width), who is not there (n, k) -> (n, width)."""
        width = own.shape[1]
        size = width // self._heads
        query = self.query(own).reshape(-1, self._heads, size).transpose(0, 1)  # heads first: one product for each
        sought = (query @ self.key.weight.reshape(self._heads, size, width)).transpose(0, 1) / size**0.5
        score = sought @ tokens.transpose(1, 2)
        if absent is not None:
            score = score - 1e9 * absent[:, None].to(score.dtype)
        mean = (torch.softmax(score, dim=-1) @ tokens).transpose(0, 1)
        value = self.value.weight.reshape(self._heads, size, width).transpose(1, 2)
        found = (mean @ value).transpose(0, 1).reshape(-1, width)
        own = self.norm1(own + self.mix(found))
        return self.norm2(own + self.own(own))


class EntityAttention(nn.Module):
    """Attention over entities.

    Args:
        tokens: indices of each entity's numbers in the input; the first entity is the agent itself.
        width: of a token.
        heads: attention heads.
        layers: attention layers.
        kinds: kind of each entity, counted from 0; entities of a kind stand together and share their embedding.
            Without it every entity is a kind of its own.
        present: for each entity the index of the number that is 1 where the entity is there and 0 where it is not, or
            None if it always is.
        mixing: whether all entities attend to all in the first layers. Without it they are embedded by two layers, and
            only the agent attends to them: a fraction of the cost where there are many.
    """

    def __init__(
        self,
        tokens: Sequence[Sequence[int]],
        width: int = 96,
        heads: int = 4,
        layers: int = 2,
        kinds: Sequence[int] | None = None,
        present: Sequence[int | None] | None = None,
        mixing: bool = True,
    ) -> None:
        super().__init__()
        self._mixing = mixing
        groups: dict[int, list[list[int]]] = {}
        for kind, token in zip(range(len(tokens)) if kinds is None else kinds, tokens, strict=True):
            groups.setdefault(kind, []).append(list(token))
        self._groups = [torch.tensor(group) for group in groups.values()]  # (entities, numbers)
        # The input is given one more number, which is 1: the entities that are always there.
        self._present = None if present is None else torch.tensor([-1 if p is None else p for p in present])
        embeddings: list[nn.Module] = []
        for group in self._groups:
            first = nn.Linear(group.shape[1], width)
            embeddings.append(first if mixing else nn.Sequential(first, nn.ReLU(), nn.Linear(width, width), nn.ReLU()))
        self.embed = nn.ModuleList(embeddings)
        if mixing:
            layer = nn.TransformerEncoderLayer(
                width, heads, 2 * width, dropout=0.0, activation="relu", batch_first=True
            )
            self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        else:
            self.glances = nn.ModuleList(Glance(width, heads) for _ in range(layers))
        self.out = nn.Sequential(nn.Linear(width, 128), nn.ELU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, inputs) -> (n, 128)."""
        tokens = torch.cat([e(x[:, g]) for e, g in zip(self.embed, self._groups, strict=True)], dim=1)
        absent = None
        if self._present is not None:
            absent = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)[:, self._present] < 0.5
        if not self._mixing:
            looking = tokens[:, 0]
            for glance in self.glances:
                looking = glance(looking, tokens, absent)
            return self.out(looking)
        for layer in self.encoder.layers[:-1]:
            tokens = layer(tokens, src_key_padding_mask=absent)
        last: Any = self.encoder.layers[-1]  # of which only the agent's own token is needed
        own = tokens[:, :1]
        own = last.norm1(own + last.self_attn(own, tokens, tokens, key_padding_mask=absent, need_weights=False)[0])
        own = last.norm2(own + last.linear2(last.activation(last.linear1(own))))
        return self.out(own[:, 0])


class ActorCritic(nn.Module):
    """Actor on what the robot sees, critic on what the simulator knows; input is [actor part | critic part].

    Args:
        n_actor: numbers for the actor.
        n_critic: numbers for the critic.
        architecture: of the actor, one of `ARCHITECTURES`; the critic is always an MLP.
        tokens: entities of the actor's part.
    """

    def __init__(self, n_actor: int, n_critic: int, architecture: str, tokens: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.n_actor = n_actor
        self.latent_dim_pi, self.latent_dim_vf = 128, 128
        self.actor_normaliser, self.critic_normaliser = Normaliser(n_actor), Normaliser(n_critic)
        self.actor = EntityAttention(tokens) if architecture == "attention" else mlp([n_actor, 256, 128, 128])
        self.critic = mlp([n_critic, 256, 128, 128])

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents of actor and critic."""
        return self.forward_actor(x), self.forward_critic(x)

    def forward_actor(self, x: torch.Tensor) -> torch.Tensor:
        """Latent of the actor, (n, 128)."""
        return self.actor(self.actor_normaliser(x[:, : self.n_actor]))

    def forward_critic(self, x: torch.Tensor) -> torch.Tensor:
        """Latent of the critic, (n, 128)."""
        return self.critic(self.critic_normaliser(x[:, self.n_actor :]))

    def update_normalisers(self, x: torch.Tensor, gather: Callable[[Any], list[Any]] = lambda own: [own]) -> None:
        """Take in a rollout's observations (n, n_actor + n_critic), and what `gather` brings of other processes'."""
        self.actor_normaliser.update(x[:, : self.n_actor], gather)
        self.critic_normaliser.update(x[:, self.n_actor :], gather)


class TokenActor(nn.Module):
    """Velocity of a pushing robot from the tokens it sees (`horseshoe.tokens`).

    It answers to what it sees and to its mirror image, and does the mean of both: so a mirrored scene gets the mirrored
    velocity, and half of the accidents of learning cancel out. Learning itself asks once (`act`).

    Args:
        architecture: one of `ARCHITECTURES`; the MLP sees the same numbers in a row.
        neighbours: tokens of other robots.
        particles: points of the object, each with its goal.
        width: of a token.
        heads: attention heads.
        layers: attention layers.
        gain: factor on the velocities of `forward`.
    """

    signs: torch.Tensor

    def __init__(
        self,
        architecture: str,
        neighbours: int,
        particles: int,
        width: int = 64,
        heads: int = 4,
        layers: int = 2,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.gain = gain
        robots = seen.SELF + seen.ROBOT * neighbours
        goals = robots + seen.OBJECT * particles
        tokens = [list(range(seen.SELF))]
        tokens += [list(range(start, start + seen.ROBOT)) for start in range(seen.SELF, robots, seen.ROBOT)]
        for k in range(particles):  # a point and its goal belong together
            point, goal = robots + seen.OBJECT * k, goals + seen.GOAL * k
            tokens.append([*range(point, point + seen.OBJECT), *range(goal, goal + seen.GOAL)])
        trunk: nn.Module
        if architecture == "attention":
            kind = [0] + [1] * neighbours + [2] * particles
            present = [token[-1] if k == 1 else None for k, token in zip(kind, tokens, strict=True)]
            trunk = EntityAttention(tokens, width, heads, layers, kind, present, mixing=False)
        else:
            trunk = mlp([goals + seen.GOAL * particles, 256, 256, 128])
        self.trunk, self.head = trunk, nn.Linear(128, 2)
        signs = torch.from_numpy(seen.mirror_signs(neighbours, particles))
        self.register_buffer("signs", torch.stack([torch.ones_like(signs), signs]), persistent=False)

    def act(self, x: torch.Tensor) -> torch.Tensor:
        """Velocities over the top speed, (n, 2), without gain and limit, of all numbers in a row, (n, numbers)."""
        return self.head(self.trunk(x))

    def forward(self, own: torch.Tensor, robots: torch.Tensor, body: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        """Actions in [-1, 1], (n, 2), of tokens (n, 5), (n, neighbours, 6), (n, particles, 4), (n, particles, 2)."""
        x = torch.cat([own, robots.flatten(1), body.flatten(1), goal.flatten(1)], dim=1)
        both = self.act((x[:, None] * self.signs).flatten(0, 1)).unflatten(0, (-1, 2))  # as it is, and mirrored
        return (torch.clamp(self.gain * both, -1.0, 1.0) * self.signs[:, :2]).mean(1)
