"""Whether the data path is right: what one end sends arrives to the byte, and nothing but ESP of the MTU's length at
most is on the wire. Each case says by itself whether it held, so that one that fails hides no other.

What is looked at is what the hosts put on the wire, in the namespace between them: ARP, what
goes to all of a link (multicast listeners and the like), and ICMP of the router's, is all that may cross in clear. Neighbours of IPv6 are entered by hand.
"""

import errno
import hashlib
import os
import re
import signal
import socket
import struct
import subprocess
import threading
import time

import net
from net import HOSTS, OTHER, address, esp, ip, no_esp, run, say

MEGA = 1 << 20
ENCAP = "encap espinudp 4500 4500 0.0.0.0"


class Wire:
    """Listens at the ports `pa` and `pb` to what the hosts send."""

    def __init__(self, mtu=1500, encap=False, keep=0, icmp=False):
        self.mtu, self.encap, self.keep, self.icmp = mtu, encap, keep, icmp
        self.packets, self.longest, self.bad, self.kept, self.lost = 0, 0, {}, [], 0
        self.used, self.twice, self.again = {}, [], []

    def __enter__(self):
        self.sockets = []
        for port in ("pa", "pb"):
            net.into("w")
            one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            one.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)
            one.bind((port, 3))
            net.into("")
            one.settimeout(0.2)
            self.sockets.append(one)
        self.over = False
        self.threads = [threading.Thread(target=self._listen, args=(one,)) for one in self.sockets]
        for one in self.threads:
            one.start()
        return self

    def _listen(self, one):
        room = bytearray(2048)
        while True:
            try:
                size, _, _, where = one.recvmsg_into([room], 0, socket.MSG_TRUNC)
            except TimeoutError:
                if self.over:
                    return
                continue
            if where[2] == socket.PACKET_OUTGOING:
                continue
            self._look(bytes(room[: min(size, 2048)]), size, where[0])

    def _look(self, frame, size, port):
        kind = struct.unpack_from("!H", frame, 12)[0]
        if kind == 0x806 or (kind == 0x86DD and (frame[38] == 0xFF or frame[22:24] == b"\xfe\x80")):
            return
        self.packets += 1
        self.longest = max(self.longest, size - 14)
        if kind == 0x800:
            protocol, rest = frame[23], frame[34:]
            later = struct.unpack_from("!H", frame, 20)[0] & 0x1FFF
        else:
            protocol, rest, later = frame[20], frame[54:], 0
            if protocol == 44:
                protocol, later, rest = rest[0], struct.unpack_from("!H", rest, 2)[0] & 0xFFF8, rest[8:]
        wanted = 17 if self.encap else 50
        fine = protocol == wanted and (later or not self.encap or rest[:4] == b"\x11\x94\x11\x94")
        fine = fine or (self.icmp and protocol in (1, 58))
        if not fine:
            self.bad[f"protocol {protocol}"] = self.bad.get(f"protocol {protocol}", 0) + 1
        if size - 14 > self.mtu:
            self.bad["longer than the MTU"] = self.bad.get("longer than the MTU", 0) + 1
        if protocol == wanted and not later:
            # SPI, number, IV: an IV of a key's that comes twice betrays what both encrypt (AES-GCM).
            esp = rest[8:] if self.encap else rest
            key = esp[:4] + esp[8:16]
            # All behind the IV of a whole frame, and where it was seen: the same one may be seen twice.
            what = (
                hashlib.sha256(frame[frame.index(esp[:16]) :]).digest(),
                esp[4:8].hex(),
                size,
                self.packets,
            )
            if key in self.used:
                words = f"SPI {esp[:4].hex()} IV {esp[8:16].hex()}: number, length, place {self.used[key][1:]}, {what[1:]}"
                (self.again if self.used[key][0] == what[0] else self.twice).append(words)
            self.used[key] = what
        if len(self.kept) < self.keep:
            self.kept.append(frame)

    def __exit__(self, *failed):
        self.over = True
        for one in self.threads:
            one.join()
        for one in self.sockets:
            self.lost += struct.unpack("II", one.getsockopt(263, 6, 8))[1]  # PACKET_STATISTICS
            one.close()
        if failed[0] is None:
            assert self.packets, "nothing was seen on the wire"
            assert not self.bad, f"on the wire: {self.bad}"
            assert not self.twice, f"{len(self.twice)} IVs came with other contents: {self.twice[:3]}"

    def words(self):
        again = f", {len(self.again)} seen twice: {self.again[:2]}" if self.again else ""
        return f"{self.packets} packets, longest {self.longest}{again}" + (
            f", {self.lost} unseen" if self.lost else ""
        )


def tcp(family, size, *, sender="a", meanwhile=None, port=5002):
    """Sends random bytes in pieces of all sizes, and compares their digest at the other end."""
    kind = socket.AF_INET6 if family == 6 else socket.AF_INET
    receiver = OTHER[sender]
    net.into(receiver)
    server = socket.create_server((address(receiver, family), port), family=kind)
    net.into(sender)
    client = socket.socket(kind)
    net.into("")
    client.settimeout(40)
    server.settimeout(40)
    sent, got, arrived, failed = hashlib.sha256(), hashlib.sha256(), 0, []

    def send():
        try:
            client.connect((address(receiver, family), port))
            left, piece = size, 1
            while left:
                piece = piece * 7 % 65521 or 1
                data = os.urandom(min(left, piece))
                sent.update(data)
                client.sendall(data)
                left -= len(data)
            client.shutdown(socket.SHUT_WR)
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=send)
    thread.start()
    with server, client:
        there, _ = server.accept()
        there.settimeout(40)
        with there:
            if meanwhile:
                other = threading.Thread(target=meanwhile)
                other.start()
            while data := there.recv(1 << 16):
                got.update(data)
                arrived += len(data)
        thread.join()
        if meanwhile:
            other.join()
    assert not failed, failed
    assert arrived == size, f"{arrived} of {size} bytes arrived"
    assert sent.digest() == got.digest(), "other bytes arrived than were sent"


def streams(family, count=8):
    """At once, half of them each way."""
    failed = []

    def one(number):
        try:
            tcp(family, MEGA, sender=HOSTS[number % 2], port=5100 + number)
        except (AssertionError, OSError) as error:
            failed.append(f"{number}: {error}")

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not failed, failed


def udp(family, sizes, segment=0, clear_first=0):
    """Datagrams of these sizes, each compared. With `segment`, each is cut into so many bytes by the kernel."""
    receiver, sender = net.udp("b", family), net.udp("a", family)
    with receiver, sender:
        receiver.bind((address("b", family), 5003))
        receiver.settimeout(3)
        sender.connect((address("b", family), 5003))
        if segment:
            sender.setsockopt(17, 103, segment)
        for size in sizes:
            data = os.urandom(size)
            sender.send(data)
            for start in range(0, size, segment or size):
                wanted = data[start : start + (segment or size)]
                try:
                    found = receiver.recv(65536)
                except TimeoutError:
                    raise AssertionError(f"a datagram of {len(wanted)} bytes did not arrive") from None
                assert found == wanted, f"of {len(wanted)} bytes {len(found)} arrived, or others"


def statistics(host):
    return {
        line.split()[0]: int(line.split()[1])
        for line in run(["cat", "/proc/net/xfrm_stat"], host=host).splitlines()
    }


def errors(before, host):
    return {key: value - before[key] for key, value in statistics(host).items() if value != before[key]}


class Case:
    """Names what it is in, and tells how it went."""

    def __init__(self, **where):
        self.where = where

    def __call__(self, name, do, within=60):
        def late(*_):
            raise AssertionError(f"took more than {within} s")

        signal.signal(signal.SIGALRM, late)
        signal.alarm(within)
        began = time.monotonic()
        before = {host: statistics(host) for host in HOSTS}
        try:
            detail, ok = do() or "", True
        except (AssertionError, OSError, RuntimeError, ValueError) as error:
            detail, ok = f"{type(error).__name__}: {error}"[:400], False
        finally:
            signal.alarm(0)
        counted = {host: found for host in HOSTS if (found := errors(before[host], host))}
        took = round(time.monotonic() - began, 1)
        say(what="check", name=name, ok=ok, detail=detail, errors=counted, seconds=took, **self.where)


def neighbours():
    for host, other in OTHER.items():
        mac = re.search(r"link/ether (\S+)", ip(other, f"link show v{other}"))[1]
        for family in (4, 6):
            ip(
                host,
                f"neigh replace {address(other, family)} lladdr {mac} nud permanent dev v{host}",
                check=False,
            )


def listen_encapsulated():
    """What charon's socket at port 4500 does for the kernel."""
    made = []
    for host in HOSTS:
        for family in (4, 6):
            one = net.udp(host, family)
            if family == 6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind(("::" if family == 6 else "0.0.0.0", 4500))
            one.setsockopt(17, 100, 2)  # UDP_ENCAP, UDP_ENCAP_ESPINUDP
            for direction in (0, 1):
                # The kernel asks for a policy of the datagram before it takes ESP out of it: this lets it pass.
                kind = socket.AF_INET6 if family == 6 else socket.AF_INET
                allow = (
                    bytes(40)
                    + struct.pack("=H", kind)
                    + bytes(110)
                    + struct.pack("=IIBBBB4x", 0, 0, direction, 0, 0, 0)
                )
                assert len(allow) == 168
                one.setsockopt(
                    *((socket.IPPROTO_IPV6, 35) if family == 6 else (socket.IPPROTO_IP, 17)), allow
                )
            made.append(one)
    return made


def transfers(case, family, mtu=1500, encap=False):
    def wired(do, **how):
        def inner():
            with Wire(mtu=mtu, encap=encap, **how) as wire:
                do()
            return wire.words()

        return inner

    case("tcp", wired(lambda: tcp(family, 4 * MEGA)))
    case("tcp the other way", wired(lambda: tcp(family, 4 * MEGA, sender="b")))
    case("many streams", wired(lambda: streams(family)))
    case("udp", wired(lambda: udp(family, [1, 2, 63, 64, 65, 1000, mtu - 100, *range(1150, 1210)])))
    case("udp with segmentation", lambda: segmented(family))
    case("fragments", wired(lambda: udp(family, [mtu, 2000, 5000, 20000, 60000])))


def segmented(family):
    """UDP_SEGMENT. Linux refuses it through IPsec (udp_send_skb: dst_xfrm), and programs then send one by one; what
    must not be is that something else arrives."""
    try:
        udp(family, [12000, 12001, 40 * 1100 + 3], segment=1100)
    except OSError as error:
        if error.errno == errno.EIO:
            return "refused by the kernel (EIO)"
        raise
    return "taken"


def rollover(family):
    """Sequence numbers some thousand before 2^32."""
    start = "replay-seq 0xfffffc00 replay-oseq 0xfffffc00"
    no_esp()
    esp((family,), spi=0x3000, extra=start)
    before = {host: statistics(host) for host in HOSTS}
    with Wire() as wire:
        tcp(family, 8 * MEGA)
        tcp(family, 4 * MEGA, sender="b")
    shown = ip("a", "-s xfrm state")
    high = re.findall(r"oseq_hi 0x0*([0-9a-f]+)|oseq-hi 0x0*([0-9a-f]+)", shown)
    numbers = re.findall(r"seq-hi 0x(\d+), seq 0x(\w+), oseq-hi 0x(\d+), oseq 0x(\w+)", shown)
    crossed = [found for found in numbers if int(found[2], 16) == 1 or int(found[0], 16) == 1]
    assert len(crossed) == 2, f"the upper half did not move on: {numbers or high or shown[:300]}"
    counted = [f"{host} {found}" for host in HOSTS if (found := errors(before[host], host))]
    assert not counted, f"packets were lost at the rollover: {'; '.join(counted)}"
    return wire.words()


def replays(family):
    """A packet of before comes again; one from before the window, too; and packets out of order are taken."""
    no_esp()
    esp((family,), spi=0x3100)
    before = statistics("b")
    receiver, sender = net.udp("b", family), net.udp("a", family)
    with receiver, sender, Wire(keep=1) as wire:
        receiver.bind((address("b", family), 5004))
        sender.connect((address("b", family), 5004))
        receiver.settimeout(2)
        sender.send(b"once")
        assert receiver.recv(100) == b"once"
        time.sleep(0.4)
        frame = wire.kept[0]
        net.into("w")
        again = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        net.into("")
        again.bind(("pb", 0))
        for _ in range(5):
            again.send(frame)
        for number in range(2000):
            sender.send(b"%d" % number)
        for _ in range(5):
            again.send(frame)
        found = []
        receiver.settimeout(0.5)
        try:
            while True:
                found.append(receiver.recv(100))
        except TimeoutError:
            pass
        again.close()
    # Two processors may put them out of order.
    assert sorted(found) == sorted(b"%d" % number for number in range(2000)), (
        f"{len(found)} datagrams, or others"
    )
    counted = errors(before, "b")
    # One of before the window counts as of the next 2^32 with ESN, so that it is the tag that does not fit.
    refused = {"XfrmInStateSeqError": 5, "XfrmInStateProtoError": 5}
    assert counted in ({"XfrmInStateSeqError": 10}, refused), f"of ten replays: {counted}"
    return ""


def disorder(family):
    """A path that puts packets out of order by up to some hundred loses none to the window."""
    no_esp()
    esp((family,), spi=0x3200)
    run("tc qdisc add dev pb root netem delay 2ms 1ms limit 20000", host="w")
    before = statistics("b")
    try:
        with Wire() as wire:
            tcp(family, 4 * MEGA)
    finally:
        run("tc qdisc del dev pb root", host="w")
    counted = errors(before, "b")
    assert not counted.get("XfrmInStateSeqError"), counted
    return wire.words()


def rekeys(family, times=12):
    """As charon does: new ones beside the old ones at both ends, then the old ones go, those that send first."""
    no_esp()
    esp((family,), spi=0x4000)

    def change():
        for number in range(times):
            old, new = 0x4000 + number * 256, 0x4000 + (number + 1) * 256
            for sending in (False, True):
                for host in HOSTS:
                    source = host if sending else OTHER[host]
                    there = address(OTHER[source], family)
                    net.state(host, address(source, family), there, new + family * 16 + (source == "b"))
            time.sleep(0.15)
            for sending in (True, False):
                for host in HOSTS:
                    source = host if sending else OTHER[host]
                    pair = f"src {address(source, family)} dst {address(OTHER[source], family)}"
                    ip(host, f"xfrm state delete {pair} proto esp spi {old + family * 16 + (source == 'b')}")
                time.sleep(0.05)

    before = {host: statistics(host) for host in HOSTS}
    with Wire() as wire:
        running = threading.Thread(target=change)
        running.start()
        transferred = 0
        while running.is_alive() or not transferred:
            tcp(family, 8 * MEGA)
            transferred += 8
        running.join()
    left = len(re.findall(r"^src ", ip("a", "xfrm state"), re.MULTILINE))
    assert left == 2, f"{left} states are left"
    counted = [found for host in HOSTS if (found := errors(before[host], host))]
    assert not counted, f"packets were dropped: {counted}"
    return f"{times} rekeys, {transferred} MiB; {wire.words()}"


def load_amid(family):
    """The modules come while states stand and carry data; then the next states have them."""
    no_esp()
    time.sleep(0.5)
    run(["rmmod", "esp4_offload", "esp6_offload"], check=False)
    assert not net.loaded(f"esp{family}_offload")
    esp((family,), spi=0x5000)
    with Wire() as wire:
        tcp(family, 8 * MEGA, meanwhile=lambda: net.load("esp4_offload", "esp6_offload"))
        before = users(family)
        esp((family,), spi=0x5100, policies=False)
        tcp(family, 4 * MEGA)
    # What swanmesh tells states of before by: a state that uses the module counts as its user.
    assert before == 0, f"states of before use it: {before}"
    assert users(family) == 4, f"4 new states, {users(family)} users"
    return wire.words()


def users(family):
    return int(open(f"/sys/module/esp{family}_offload/refcnt").read())


def unload_amid(family):
    """Taken away under states that use it, a module must stay, or do no harm."""
    no_esp()
    esp((family,), spi=0x5200)
    said = []

    def unload():
        done = subprocess.run(["rmmod", f"esp{family}_offload"], capture_output=True, text=True)
        said.append(done.stderr.strip() or "unloaded")

    with Wire() as wire:
        tcp(family, 8 * MEGA, meanwhile=unload)
        tcp(family, 4 * MEGA)
        udp(family, [1000] * 20)
    return f"{said[0]}; {wire.words()}"


def small_path(case):
    """A router whose far link takes 1280 bytes, as it tells the sender."""
    for host in (*HOSTS, "w"):
        run(f"ip netns add {host}")
    run("sysctl -q net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1", host="w")
    for number, host in enumerate(HOSTS, 1):
        run(f"ip link add v{host} netns {host} type veth peer name p{host} netns w")
        for where, device, last in ((host, f"v{host}", 1), ("w", f"p{host}", 254)):
            ip(where, "link set lo up")
            ip(where, f"addr add 10.{number}.0.{last}/24 dev {device}")
            ip(where, f"addr add fd0{number}::{last:x}/64 dev {device} nodad")
            ip(where, f"link set {device} up")
        ip(host, f"route add default via 10.{number}.0.254")
        ip(host, f"-6 route add default via fd0{number}::fe")
        net.set_card(host, f"v{host}", "gso")
    ip("w", "link set pb mtu 1280")
    before = dict(net.V4), dict(net.V6)
    net.V4.update(a="10.1.0.1", b="10.2.0.1")
    net.V6.update(a="fd01::1", b="fd02::1")
    try:
        for family in (4, 6):
            no_esp()
            esp((family,), spi=0x6000)

            def learn(family=family):
                with Wire(icmp=True) as wire:
                    tcp(family, 2 * MEGA)
                    udp(family, [100, 1000])
                return wire.words()

            case.where["family"] = family
            case("path of 1280", learn)
    finally:
        net.V4.update(before[0])
        net.V6.update(before[1])


def main(job):
    if job.get("brief"):
        globals()["rollover"] = globals()["rekeys"] = globals()["disorder"] = globals()["replays"] = (
            lambda family: "left out"
        )
    net.start()
    say(what="cipher", driver=net.cipher())
    for offload in job["offload"]:
        if offload:
            net.load("esp4_offload", "esp6_offload")
        for card in job["cards"]:
            net.switch(card=card)
            neighbours()
            for family in job["families"]:
                case = Case(offload=offload, card=card, family=family)
                no_esp()
                esp((family,))
                transfers(case, family)
                case("sequence numbers past 2^32", lambda: rollover(family))
                case("replays", lambda: replays(family))
                case("out of order", lambda: disorder(family))
                case("rekeys under load", lambda: rekeys(family))
                no_esp()
                sockets = listen_encapsulated()
                esp((family,), spi=0x2000, extra=ENCAP if family == 4 else ENCAP.replace("0.0.0.0", "::"))
                transfers(Case(offload=offload, card=card, family=family, encap=True), family, encap=True)
                for one in sockets:
                    one.close()
                no_esp()
            net.unplug()
        small_path(Case(offload=offload, card="gso"))
        no_esp()
        net.unplug()
        for module in ("esp4_offload", "esp6_offload"):
            run(["rmmod", module], check=False)
    if not job["modules"]:
        return
    net.switch(card="gso")
    neighbours()
    for family in job["families"]:
        case = Case(card="gso", family=family)
        case("modules loaded under states", lambda: load_amid(family))
        case("modules unloaded under states", lambda: unload_amid(family))
