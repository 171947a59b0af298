"""Counts what a byte and a packet cost, and what a link held to a rate carries.

One CPU does both ends. An instruction is a nanosecond of the guest's clock, so what the kernel's own clock says,
less the time in which the CPU idled (/proc/timer_list has both to the nanosecond), is how many instructions there
were: exactly, and the same in every run. Each figure is the slope between a short transfer and a long one, so that
starting programs and connections costs nothing.
"""

import json
import re
import subprocess
import time

import net
from net import run, say
from paths import PATHS, reachable
from sampling import Samples


def counted():
    """Nanoseconds in which the CPU was busy."""
    text = open("/proc/timer_list").read(20000)
    now = int(re.search(r"now at (\d+)", text)[1])
    idle = sum(int(n) for n in re.findall(r"\.(?:idle_sleeptime|iowait_sleeptime)\s*: (\d+)", text))
    return now - idle


def transfer(target, arguments):
    before = counted()
    said = run(["iperf3", "-J", "-c", target, *arguments.split()], host="a", check=False)
    cost = counted() - before
    found = json.loads(said)
    if "error" in found:
        raise RuntimeError(found["error"])
    return cost, found["end"]


def tcp(target, family, length, amount):
    """Bytes, all one way."""
    cost, end = transfer(target, f"-n {amount}")
    return cost, end["sum_received"]["bytes"], 0


BURST = 64


def datagrams(target, family, length, amount):
    """Bursts from a process that then takes what has arrived: no timers, and no queue that overflows."""
    inner = 6 if ":" in target else 4
    sender, receiver = net.udp("a", inner), net.udp("b", inner)
    with sender, receiver:
        receiver.bind((target, 5001))
        sender.connect((target, 5001))
        receiver.settimeout(0.5)
        data, room, arrived = bytes(length), bytearray(2048), 0
        sender.send(data)
        receiver.recv_into(room)
        before = counted()
        for _ in range(amount // BURST):
            for _ in range(BURST):
                sender.send(data)
            try:
                for _ in range(BURST):
                    receiver.recv_into(room)
                    arrived += 1
            except TimeoutError:
                pass
        cost = counted() - before
    return cost, arrived, amount // BURST * BURST - arrived


def slope(target, family, kind, length, amounts):
    """Instructions for each byte (TCP) or packet that arrived, and how many packets did not."""
    how = tcp if kind == "tcp" else datagrams
    how(target, family, length, amounts[0])  # warms up
    points = [how(target, family, length, amount) for amount in amounts]
    (cost, units, lost), (more, most, lost_too) = points
    return (more - cost) / (most - units), lost + lost_too


def serve():
    server = subprocess.Popen(["ip", "netns", "exec", "b", "iperf3", "-s"], stdout=subprocess.DEVNULL)
    time.sleep(1)
    return server


def stop(server):
    server.kill()
    server.wait()


def wire_packets(host="b", device="vb"):
    base = f"/sys/class/net/{device}/statistics/"
    return [int(x) for x in run(["cat", base + "rx_packets", base + "rx_bytes"], host=host).split()]


def costs(job):
    traffic = job["traffic"]
    for card, families, names, kinds in job["runs"]:
        net.cable(card=card)
        for name in names:
            for family in families:
                path = PATHS[name]()
                facts = {"what": "cost", "card": card, "path": name, "family": family}
                server = serve()
                try:
                    target = path.up(family, 1500)
                    reachable(target)
                    for kind in kinds:
                        length, amounts = traffic[kind]
                        packets, size = wire_packets()
                        value, lost = slope(target, family, kind, length, amounts)
                        after = wire_packets()
                        count = max(1, after[0] - packets)
                        say(
                            **facts,
                            kind=kind,
                            instructions=value,
                            lost=lost,
                            packet=(after[1] - size) / count,
                        )
                except Exception as error:
                    say(**facts, kind="", failed=str(error)[-300:])
                finally:
                    path.down()
                    stop(server)
        net.unplug()
        for module in ("esp4_offload", "esp6_offload"):
            run(["rmmod", module], check=False)


def variants(job):
    """What our connections ask of the kernel beside encryption, each changed by itself; and where it all goes."""
    for name in job["variants"]:
        net.cable()
        change = VARIANTS[name]
        facts = {"what": "variant", "variant": name}
        server = serve()
        try:
            change()
            reachable(net.V4["b"])
            for kind, length, amounts in (("tcp", 0, job["tcp"]), ("small", 64, job["small"])):
                value, _ = slope(net.V4["b"], 4, kind, length, amounts)
                say(**facts, kind=kind, instructions=value, cipher=net.cipher())
            if name in job["profiled"]:
                amount = job["tcp"][1]
                with Samples() as samples:
                    tcp(net.V4["b"], 4, 0, amount)
                found = samples.functions()
                most = sorted(found.items(), key=lambda item: -item[1])[:400]
                say(what="profile", variant=name, samples=sum(found.values()), functions=dict(most))
        except Exception as error:
            say(**facts, failed=str(error)[-300:])
        finally:
            net.no_esp()
            stop(server)
            net.unplug()


def offloaded(**how):
    net.load("esp4_offload")
    net.esp((4,), **how)


def peers(count=5000):
    """So many more, as policies and states that nothing is sent through."""
    offloaded()
    for host in net.HOSTS:
        lines = []
        for number in range(count):
            other = f"10.{100 + number // 60_000}.{number // 250 % 240}.{number % 250 + 1}"
            mine, reqid = net.V4[host], number + 10
            for source, to, spi in ((mine, other, 2 * number), (other, mine, 2 * number + 1)):
                way = "out" if source == mine else "in"
                name, key, bits = net.ALGORITHM
                lines.append(
                    f"xfrm state add src {source} dst {to} proto esp spi {0x100000 + spi} reqid {reqid} mode transport"
                    f" replay-window 1024 flag esn aead {name} {key} {bits}"
                )
                lines.append(
                    f"xfrm policy add src {source} dst {to} dir {way} tmpl proto esp reqid {reqid} mode transport"
                )
        net.run(["ip", "-n", host, "-batch", "-"], feed="\n".join(lines) + "\n")


def checksums():
    """By the kernel in place of the card."""
    for host in net.HOSTS:
        net.run(f"ethtool -K v{host} tx off rx off", host=host)
        net.set_card(host, f"v{host}", "gso")
    offloaded()


def generic():
    net.run(["rmmod", "aesni_intel"])
    net.run(["rmmod", "ghash_clmulni_intel"], check=False)
    offloaded()


VARIANTS = {
    "unencrypted": lambda: None,
    "without the module": lambda: net.esp((4,)),
    "as it is": offloaded,
    "without ESN, window 32": lambda: offloaded(window=32, esn=False),
    "window 32": lambda: offloaded(window=32),
    "window 4,096": lambda: offloaded(window=4096),
    "5,000 peers": peers,
    "checksums in software": checksums,
    "cipher without AES-NI": generic,
}


def goodputs(job):
    """What TCP carries where every port of the switch passes so many bits a second, Ethernet's own included: 24
    bytes of preamble, checksum and gap beside each frame's header."""
    rate = job["rate"]
    for mtu, seconds in job["mtus"]:
        net.switch(mtu=mtu)
        for port in ("pa", "pb"):
            # A queue of 20 ms, as a switch has.
            queue = max(20, rate * 20_000 // 8 // mtu)
            net.run(f"tc qdisc add dev {port} root netem rate {rate}mbit 24 limit {queue}", host="w")
        for family, names in job["goodput_paths"]:
            for name in names:
                path = PATHS[name]()
                facts = {"what": "goodput", "mtu": mtu, "path": name, "family": family, "rate": rate}
                server = serve()
                try:
                    target = path.up(family, mtu)
                    reachable(target)
                    _, end = transfer(target, f"-t {seconds} -O 1")
                    stream = end["streams"][0]["sender"]
                    say(
                        **facts,
                        bits=end["sum_received"]["bits_per_second"],
                        retransmits=stream["retransmits"],
                    )
                except Exception as error:
                    say(**facts, failed=str(error)[-300:])
                finally:
                    path.down()
                    stop(server)
        net.unplug()


def main(job):
    net.start()
    say(what="cipher", driver=net.cipher())
    if job.get("variants"):
        variants(job)
    if job.get("runs"):
        costs(job)
    if job.get("mtus"):
        goodputs(job)
