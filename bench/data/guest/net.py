"""Two hosts `a` and `b` as network namespaces, the cable between them, and ESP as swanmesh's connections have it."""

import ctypes
import json
import socket
import subprocess
import time

V4 = {"a": "10.0.0.1", "b": "10.0.0.2"}
V6 = {"a": "fd00::1", "b": "fd00::2"}
HOSTS = ("a", "b")
ALGORITHM = ("rfc4106(gcm(aes))", "0x000102030405060708090a0b0c0d0e0f10111213", "128")
OTHER = {"a": "b", "b": "a"}


def say(**facts):
    print("@@ " + json.dumps(facts), flush=True)


def run(command, *, host=None, check=True, feed=None, timeout=None):
    """What it printed."""
    words = command.split() if isinstance(command, str) else list(command)
    if host:
        words = ["ip", "netns", "exec", host, *words]
    done = subprocess.run(words, capture_output=True, text=True, input=feed, timeout=timeout)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stdout}{done.stderr}")
    return done.stdout


def ip(host, words, check=True):
    return run(f"ip -n {host} {words}", check=check)


def load(*modules):
    for module in modules:
        run(["modprobe", module], check=False)


def loaded(module):
    return any(line.split()[0] == module for line in open("/proc/modules"))


def cipher():
    """The driver that the kernel takes for ESP's algorithm: the one of highest priority."""
    best = (-1, "none")
    for block in open("/proc/crypto").read().split("\n\n"):
        fields = dict(line.split(":", 1) for line in block.splitlines() if ":" in line)
        fields = {key.strip(): value.strip() for key, value in fields.items()}
        if fields.get("name") == ALGORITHM[0] and "internal" not in fields.get("internal", "").replace(
            "no", ""
        ):
            best = max(best, (int(fields["priority"]), fields["driver"]))
    return best[1]


def start():
    load(
        *[
            "xfrm_user",
            "esp4",
            "esp6",
            "gcm",
            "seqiv",
            "aesni-intel",
            "ghash-clmulni-intel",
            "veth",
            "bridge",
            "tun",
            "wireguard",
        ]
    )
    run("ip link set lo up")


def cable(mtu=1500, card="gso"):
    """One veth from a to b. `card` is what it does: `tso` takes large packets as they are, `gso` gets them cut by
    software in front of it and puts together what arrives, `none` does neither."""
    for host in HOSTS:
        run(f"ip netns add {host}")
    run("ip link add va netns a type veth peer name vb netns b")
    for host in HOSTS:
        _address(host, f"v{host}", mtu)
        set_card(host, f"v{host}", card)


def set_card(host, device, card):
    features = {
        "tso": "tso on gso on gro on",
        "gso": "tso off tx-udp-segmentation off gso on gro on",
        "none": "tso off tx-udp-segmentation off gso off gro off",
    }[card]
    for feature, value in zip(*[iter(features.split())] * 2):
        run(f"ethtool -K {device} {feature} {value}", host=host, check=False)


def _address(host, device, mtu):
    ip(host, "link set lo up")
    ip(host, f"addr add {V4[host]}/24 dev {device}")
    ip(host, f"addr add {V6[host]}/64 dev {device} nodad")
    ip(host, f"link set {device} mtu {mtu} up")


def switch(mtu=1500, card="gso"):
    """a and b, each with a cable to a bridge in `w`, where it can be shaped and listened to."""
    for host in (*HOSTS, "w"):
        run(f"ip netns add {host}")
    run("sysctl -q net.ipv6.conf.all.disable_ipv6=1", host="w", check=False)
    ip("w", "link add sw type bridge mcast_snooping 0")
    for host in HOSTS:
        run(f"ip link add v{host} netns {host} type veth peer name p{host} netns w")
        _address(host, f"v{host}", mtu)
        set_card(host, f"v{host}", card)
        set_card("w", f"p{host}", "none")
        ip("w", f"link set p{host} mtu {max(mtu, 1500)} master sw up")
    ip("w", f"link set sw mtu {max(mtu, 1500)} up")


def into(host):
    """This process's sockets are of that host from now on."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/run/netns/{host}" if host else "/proc/1/ns/net") as file:
        if libc.setns(file.fileno(), 0):
            raise OSError(ctypes.get_errno(), "setns")


def udp(host, family, size=8 << 20):
    """A socket of a host's, with room for bursts."""
    into(host)
    made = socket.socket(socket.AF_INET6 if family == 6 else socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, 33, size)  # SO_RCVBUFFORCE
    made.setsockopt(socket.SOL_SOCKET, 32, size)  # SO_SNDBUFFORCE
    into("")
    return made


def unplug():
    for host in (*HOSTS, "w"):
        for device in (f"v{host}",):
            ip(host, f"link del {device}", check=False)
        run(f"ip netns del {host}", check=False)
    time.sleep(0.5)


def address(host, family):
    return V4[host] if family == 4 else V6[host]


def state(host, source, to, spi, *, window=1024, esn=True, extra="", change="add"):
    name, key, bits = ALGORITHM
    words = [
        *f"ip -n {host} xfrm state {change} src {source} dst {to} proto esp spi {spi} reqid 1 mode transport".split(),
        *f"replay-window {window}".split(),
        *(["flag", "esn"] if esn else []),
        *extra.split(),
        "aead",
        name,
        key,
        bits,
    ]
    run(words)


def esp(families=(4, 6), *, spi=0x1000, window=1024, esn=True, extra="", policies=True):
    """An association each; as charon makes them (ESN, a window of 1,024 packets)."""
    for family in families:
        for host in HOSTS:
            for source in HOSTS:
                number = spi + family * 16 + (source == "b")
                there = address(OTHER[source], family)
                state(host, address(source, family), there, number, window=window, esn=esn, extra=extra)
            if policies:
                mine, theirs = address(host, family), address(OTHER[host], family)
                tail = "tmpl proto esp reqid 1 mode transport"
                ip(host, f"xfrm policy add src {mine} dst {theirs} dir out {tail}")
                ip(host, f"xfrm policy add src {theirs} dst {mine} dir in {tail}")


def no_esp():
    for host in HOSTS:
        ip(host, "xfrm policy flush")
        ip(host, "xfrm state flush")
