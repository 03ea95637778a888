"""A vector environment that steps all of a child's slots at once.  See env_spaces.py."""


def batch_at(value, path, i):
    """Environment i's part of what a vector environment gave."""
    return at(value, path)[i]


def final_at(final, path, i):
    """The same of infos["final_obs"], in which Dict observations are Dicts of batches and others not."""
    return at(final, path)[i] if isinstance(final, dict) else at(final[i], path)


class VectorSlots:
    """gymnasium.make_vec's environment, whose members end and begin episodes as single ones do.

    It steps when every member has a command.  In the mode NEXT_STEP the first observation of an
    episode comes with the others' next step: that member's command is done then, and the action
    that it is given meanwhile is one it does not look at.
    """

    def __init__(self, options, kwargs):
        self._size = options["num_slots"]
        if gymnasium.spec(options["id"]).vector_entry_point is None:
            raise FaultyEnvironment(
                f"{options['id']} has no vector_entry_point, so there is no vector environment of "
                "it: set environment.gymnasium.vector to false")
        self._env = gymnasium.make_vec(options["id"], num_envs=self._size,
                                       vectorization_mode="vector_entry_point", **kwargs)
        mode = self._env.metadata.get("autoreset_mode")
        self._mode = getattr(mode, "name", str(mode))
        if self._mode not in ("NEXT_STEP", "SAME_STEP", "DISABLED"):
            raise FaultyEnvironment(
                f"metadata['autoreset_mode'] is {mode}; Gymnasium knows NEXT_STEP, SAME_STEP and "
                "DISABLED")
        self.observation_space = self._env.single_observation_space
        self.action_space = self._env.single_action_space
        self.spec = self._env.spec
        # Members whose episode ended, and whose next one has not shown itself.
        self._beginning = np.zeros(self._size, bool)
        self._asked = 0
        self._reset_asked = False

    def max_episode_steps(self):
        steps = (self.spec and self.spec.kwargs.get("max_episode_steps")) or 0
        return max(0, int(steps))

    def share(self, memory, geometry, leaves, action):
        """What carries out each command, and gives the slots that are done with it."""
        offsets, self._stride = geometry["offsets"], geometry["slot_bytes"]
        self._leaves, self._action, self._memory = leaves, action, memory
        self._seeds = self._view(np.uint64, 0)
        self._rewards = self._view(np.float64, 8)
        self._ended = self._view(np.uint8, 16)
        self._actions = self._view(np.float64, offsets["action"], (action.size,))
        self._last = self._views(offsets["last_observation"], offsets["last_images"])
        self._first = self._views(offsets["first_observation"], offsets["first_images"])
        carry_out = {}
        for slot in range(self._size):
            carry_out[slot] = self._ask
            carry_out[slot | RESET] = self._ask_reset
        return carry_out

    def _view(self, dtype, offset, shape=()):
        """The same part of every slot."""
        inner = np.empty(shape, dtype).strides
        return np.ndarray((self._size, *shape), dtype, self._memory, offset,
                          (self._stride, *inner))

    def _views(self, at_number, at_image):
        views = []
        for leaf in self._leaves:
            if leaf.is_image:
                views.append(self._view(np.uint8, at_image, leaf.shape))
                at_image += leaf.size
            else:
                views.append(self._view(np.float64, at_number, leaf.shape))
                at_number += 8 * leaf.size
        return list(zip(self._leaves, views))

    def _ask_reset(self):
        self._reset_asked = True
        return self._ask()

    def _ask(self):
        self._asked += 1
        if self._asked < self._size:
            return ()
        if self._reset_asked:
            return self._reset_all()
        done = self._step()
        # When nobody is left to wait for, the new episodes show themselves at once.
        return done or self._step()

    def _reset_all(self):
        observation, _ = self._env.reset(seed=int(self._seeds[0]) & 0x7fffffff)
        self._beginning[:] = False
        self._reset_asked = False
        self._asked = 0
        self._write(self._first, observation, range(self._size))
        return range(self._size)

    def _step(self):
        result = self._env.step(self._action.read_all(self._actions))
        if type(result) is not tuple or len(result) != 5:
            raise not_five(result)
        observation, rewards, terminated, truncated, infos = result
        began = np.flatnonzero(self._beginning).tolist()
        stepped = np.flatnonzero(~self._beginning).tolist()
        ended = np.array(terminated, np.uint8) + 2 * np.array(truncated, np.uint8)
        if ended.shape != (self._size,) or np.shape(rewards) != (self._size,):
            raise FaultyEnvironment(
                f"step() gave rewards of the shape {np.shape(rewards)} and ends of the shape "
                f"{ended.shape} for {self._size} environments")
        over = ended.astype(bool) & ~self._beginning
        self._write(self._first, observation, began)
        self._rewards[stepped] = np.asarray(rewards)[stepped]
        self._ended[stepped] = ended[stepped]
        if self._mode == "SAME_STEP" and over.any():
            self._write_both(observation, infos, over)
        else:
            self._write(self._last, observation, stepped)
            if self._mode == "DISABLED" and over.any():
                observation, _ = self._env.reset(options={"reset_mask": over.copy()})
                self._write(self._first, observation, np.flatnonzero(over).tolist())
        self._beginning = over if self._mode == "NEXT_STEP" else np.zeros_like(over)
        self._asked = int(self._beginning.sum())
        return np.flatnonzero(~self._beginning).tolist()

    def _write_both(self, observation, infos, over):
        """Mode SAME_STEP: what the ended members show is their next episode's first observation."""
        if "final_obs" not in infos:
            raise FaultyEnvironment(
                "an episode ended in a vector environment of the mode SAME_STEP, whose infos have "
                f"no final_obs: {sorted(infos)}")
        ended = np.flatnonzero(over).tolist()
        self._write(self._first, observation, ended)
        self._write(self._last, infos["final_obs"], ended, final_at)
        self._write(self._last, observation, np.flatnonzero(~over).tolist())

    def _write(self, views, observation, slots, part=batch_at):
        for leaf, view in views:
            if len(slots) == self._size and part is batch_at and isinstance(leaf, BoxLeaf):
                leaf.write_all(at(observation, leaf.path), view)
                continue
            for slot in slots:
                leaf.write(part(observation, leaf.path, slot), view[slot, ...])

    def close(self):
        self._env.close()
