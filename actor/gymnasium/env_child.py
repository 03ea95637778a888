"""Steps Gymnasium environments for an actor that shares memory with this process.  See env_spaces.py.

The actor starts it with the socket as file 3 and this program as file 4, and as its argument a JSON
object: id, kwargs, module, max_episode_steps, num_slots, vector.  Each slot is one environment.

Messages, one datagram each:
  to the actor    {"action": ..., "columns": ..., "images": ...}: what the environments are like
  from the actor  {"offsets": ..., "slot_bytes": ...} with the shared memory's file: begin
  from the actor  one byte: there are commands again, after child_sleeps was set
  to the actor    "w": as many commands are done as wake_at says
  to the actor    "e" and a text: what went wrong; this process then ends

Commands themselves are in the shared memory (ChildControl in shared_slots.h), so that neither side
calls the kernel while both have work.
"""
MAX_TEXT = 60000
PR_SET_PDEATHSIG = 1
# Where the parts of ChildControl begin.
COMMANDS, WAKE_AT, DONE, CHILD_SLEEPS, RINGS = 0, 4, 64, 68, 128
COUNT_MASK = 0xffffffff


class Slot:
    """One environment and its part of the shared memory."""

    def __init__(self, env, leaves, action, memory, offsets):
        self._env, self._leaves, self._offsets = env, leaves, offsets
        self._seed = memory[0:8].cast("Q")
        self._reward = memory[8:16].cast("d")
        self._ended = memory[16:17]
        self._read_action = action.reader(
            np.frombuffer(memory, np.float64, action.size, offsets["action"]))
        self._last = self._views(memory, "last_observation", "last_images")
        self._first = self._views(memory, "first_observation", "first_images")

    def _views(self, memory, numbers, images):
        """A view of each leaf's part: numbers are float64, images bytes."""
        views, at_number, at_image = [], self._offsets[numbers], self._offsets[images]
        for leaf in self._leaves:
            if leaf.is_image:
                view = np.frombuffer(memory, np.uint8, leaf.size, at_image)
                at_image += leaf.size
            else:
                view = np.frombuffer(memory, np.float64, leaf.size, at_number)
                at_number += 8 * leaf.size
            views.append(view.reshape(leaf.shape))
        return list(zip(self._leaves, views))

    def stepper(self, done):
        """What carries out a step, and gives `done`.

        Millions of steps come here, so that names are local, and the one leaf of most environments
        is written without a loop.
        """
        step, read_action, reward_at, ended, begin = (
            self._env.step, self._read_action, self._reward, self._ended, self._begin)
        write_last = one_writer(*self._last[0]) if len(self._last) == 1 else self._write_last

        def carry_out():
            result = step(read_action())
            if type(result) is not tuple or len(result) != 5:
                raise not_five(result)
            observation, reward, terminated, truncated, _ = result
            write_last(observation)
            reward_at[0] = reward
            if terminated or truncated:
                ended[0] = (1 if terminated else 0) + (2 if truncated else 0)
                begin(None)
            return done

        return carry_out

    def resetter(self, done):
        """The same of a command to begin an episode, with the seed in the slot."""
        def carry_out():
            # Gymnasium's seeds are of 32 bits for some environments.
            self._begin(self._seed[0] & 0x7fffffff)
            return done

        return carry_out

    def _write_last(self, observation):
        for leaf, view in self._last:
            leaf.write(at(observation, leaf.path), view)

    def _begin(self, seed):
        observation, _ = self._env.reset() if seed is None else self._env.reset(seed=seed)
        for leaf, view in self._first:
            leaf.write(at(observation, leaf.path), view)


def one_writer(leaf, view):
    write, path = leaf.write, leaf.path
    if path:
        return lambda observation: write(at(observation, path), view)
    shape, dtype, array = leaf.shape, getattr(leaf, "dtype", None), np.ndarray

    def write_box(observation):
        if type(observation) is array and observation.dtype is dtype and observation.shape == shape:
            view[...] = observation
        else:
            write(observation, view)

    return write_box if isinstance(leaf, BoxLeaf) else lambda observation: write(observation, view)


class SingleSlots:
    """An environment of gymnasium.make in each slot."""

    def __init__(self, options, kwargs):
        self._envs = [gymnasium.make(options["id"], **kwargs) for _ in range(options["num_slots"])]
        self.observation_space = self._envs[0].observation_space
        self.action_space = self._envs[0].action_space

    def max_episode_steps(self):
        spec = self._envs[0].spec
        return (spec and spec.max_episode_steps) or 0

    def share(self, memory, geometry, leaves, action):
        """What carries out each command, and gives the slots that are done with it."""
        size, carry_out = geometry["slot_bytes"], {}
        for i, env in enumerate(self._envs):
            slot = Slot(env, leaves, action, memory[i * size:(i + 1) * size], geometry["offsets"])
            carry_out[i] = slot.stepper((i,))
            carry_out[i | RESET] = slot.resetter((i,))
        return carry_out

    def close(self):
        for env in self._envs:
            env.close()


LOCK = threading.Lock()
# Processors of this kind let nothing pass but reads the writes before them.
KEEPS_ORDER = os.uname().machine == "x86_64"


def fence():
    """What was done to memory before is seen before what is done after.

    Python has no word for it; a lock's atomic instructions have that effect, taken twice even on
    processors that let others pass a single one.
    """
    LOCK.acquire()
    LOCK.release()
    LOCK.acquire()
    LOCK.release()


class Child:
    def __init__(self, channel, options):
        self._channel = channel
        if options["module"]:
            importlib.import_module(options["module"])
        kwargs = dict(options["kwargs"])
        if options["max_episode_steps"]:
            kwargs["max_episode_steps"] = options["max_episode_steps"]
        self._slots = (VectorSlots if options["vector"] else SingleSlots)(options, kwargs)
        self._num_slots = options["num_slots"]
        self._leaves = leaves_of(self._slots.observation_space)
        self._action = action_of(self._slots.action_space)

    def introduce(self):
        self._channel.send(json.dumps({
            "max_episode_steps": self._slots.max_episode_steps(),
            "action": self._action.description,
            "columns": [[leaf.name, leaf.stored_shape()] for leaf in self._leaves
                        if not leaf.is_image],
            "images": [[leaf.name, leaf.stored_shape()] for leaf in self._leaves if leaf.is_image],
        }).encode())

    def share_memory(self):
        """False: the actor is gone."""
        message, files, _, _ = socket.recv_fds(self._channel, MAX_TEXT, 1)
        if not message:
            return False
        geometry = json.loads(message)
        begin, size = geometry["slots_begin"], geometry["ring_size"]
        whole = memoryview(mmap.mmap(files[0], begin + geometry["slot_bytes"] * self._num_slots))
        os.close(files[0])
        self._control = {name: whole[at:at + 4].cast("I") for name, at in
                         (("commands", COMMANDS), ("wake_at", WAKE_AT), ("done", DONE),
                          ("child_sleeps", CHILD_SLEEPS))}
        self._ring = whole[RINGS:RINGS + 2 * size].cast("H")
        self._done_ring = whole[RINGS + 2 * size:RINGS + 4 * size].cast("H")
        self._carry_out = self._slots.share(whole[begin:], geometry, self._leaves, self._action)
        return True

    def serve(self):
        """Until the actor is gone."""
        commands, wake_at, done = (self._control[x] for x in ("commands", "wake_at", "done"))
        ring, done_ring, carry_out = self._ring, self._done_ring, self._carry_out
        mask, taken, given, count = len(ring) - 1, 0, 0, 0
        acquire, release, keeps_order = LOCK.acquire, LOCK.release, KEEPS_ORDER
        while True:
            if taken == given:
                given = commands[0]
                if taken == given and not self._sleep(taken):
                    return
                if not keeps_order:
                    fence()
                continue
            slots = carry_out[ring[taken & mask]]()
            taken = (taken + 1) & COUNT_MASK
            for slot in slots:
                done_ring[count & mask] = slot
                count = (count + 1) & COUNT_MASK
            if not keeps_order:
                fence()
            done[0] = count
            if keeps_order:
                acquire()
                release()
            else:
                fence()
            if (count - wake_at[0]) & COUNT_MASK < len(slots):
                self._channel.send(b"w")

    def _sleep(self, taken):
        """Until there is a command behind the first `taken`; False: the actor is gone."""
        commands, child_sleeps = self._control["commands"], self._control["child_sleeps"]
        child_sleeps[0] = 1
        fence()
        is_there = commands[0] != taken or self._channel.recv(16)
        child_sleeps[0] = 0
        return is_there

    def close(self):
        self._slots.close()


def main():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    sys.path[0] = os.getcwd()
    try:
        child = Child(CHANNEL, json.loads(sys.argv[1]))
        child.introduce()
        if child.share_memory():
            child.serve()
        child.close()
    except (BrokenPipeError, ConnectionResetError):
        pass
    except BaseException:  # whatever an environment may raise, SystemExit included
        CHANNEL.send(b"e" + traceback.format_exc()[-MAX_TEXT:].encode())
        sys.exit(1)


main()
