"""A Slurm of one node on this machine: munged, slurmctld and slurmd of its own, in a folder."""

import os
import pathlib
import shutil
import socket
import subprocess
import time

PATIENCE_SECONDS = 60
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")


def missing():
    """Programs that are not installed; Debian has them in slurm-wlm and munge."""
    return [name for name in NEEDED if shutil.which(name, path=search_path()) is None]


def search_path():
    return os.environ["PATH"] + ":/usr/sbin"


def free_port():
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


class SlurmCluster:
    """Slurm's daemons refuse to run as anyone but root or a user of their own: this needs root."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self._daemons = []
        self.environment = {**os.environ, "PATH": search_path(),
                            "SLURM_CONF": str(self.folder / "slurm.conf")}

    def start(self):
        host = socket.gethostname().split(".")[0]
        for name in ("state", "spool", "munge"):
            (self.folder / name).mkdir(mode=0o755)
        key = self.folder / "munge" / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        (self.folder / "slurm.conf").write_text(self._configuration(host))
        self._daemon("munged", "--foreground", "--force", f"--key-file={key}",
                     f"--socket={self._munge_socket()}", f"--pid-file={self.folder}/munge/pid",
                     f"--seed-file={self.folder}/munge/seed", f"--log-file={self.folder}/munge.log")
        self._await(lambda: self._munge_socket().exists(), "munged")
        self._daemon("slurmctld", "-D", "-c")
        self._daemon("slurmd", "-D", "-N", host)
        self._await(lambda: self.run("sinfo", "-h", "-o", "%T").stdout.strip() == "idle", "slurmd")

    def stop(self):
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in self._daemons:
            try:
                daemon.wait(timeout=PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def run(self, *command, **options):
        return subprocess.run([str(word) for word in command], env=self.environment, text=True,
                              capture_output=True, check=False, timeout=PATIENCE_SECONDS, **options)

    def job(self, number):
        """A job's state and exit code, as scontrol says."""
        words = dict(word.split("=", 1)
                     for word in self.run("scontrol", "show", "job", number).stdout.split()
                     if "=" in word)
        return words.get("JobState"), words.get("ExitCode")

    def log(self):
        return "\n".join(f"{path}:\n{path.read_text()[-3000:]}"
                         for path in self.folder.glob("*.log"))

    def _munge_socket(self):
        return self.folder / "munge" / "socket"

    def _daemon(self, name, *flags):
        with open(self.folder / f"{name}.out.log", "w", encoding="utf-8") as log:
            self._daemons.append(subprocess.Popen(
                [shutil.which(name, path=search_path()), *flags], env=self.environment, stdout=log,
                stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL))

    def _await(self, ready, what):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not ready():
            if time.monotonic() > deadline or any(each.poll() is not None
                                                  for each in self._daemons):
                raise RuntimeError(f"{what} does not come up:\n{self.log()}")
            time.sleep(0.1)

    def _configuration(self, host):
        return f"""
ClusterName=test
SlurmctldHost={host}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={self._munge_socket()}
CredType=cred/munge
SlurmctldPort={free_port()}
SlurmdPort={free_port()}
StateSaveLocation={self.folder}/state
SlurmdSpoolDir={self.folder}/spool
SlurmctldPidFile={self.folder}/slurmctld.pid
SlurmdPidFile={self.folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/linear
MpiDefault=none
ReturnToService=2
KillWait=30
NodeName={host} NodeAddr=127.0.0.1 CPUs={os.cpu_count()} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
