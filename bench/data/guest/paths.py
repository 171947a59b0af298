"""The data paths side by side: each is set up between a and b, and says which address of b's goes through it."""

import os
import subprocess
import time

from net import HOSTS, OTHER, address, esp, ip, load, loaded, no_esp, run


class Plain:
    name = "plain"

    def up(self, family, mtu):
        return address("b", family)

    def down(self):
        pass


class Esp(Plain):
    """As charon has the kernel do it, without the module that lets segmentation pass through it."""

    name = "esp"

    def up(self, family, mtu):
        if loaded(f"esp{family}_offload"):
            raise RuntimeError(f"esp{family}_offload is loaded already")
        esp()
        return address("b", family)

    def down(self):
        no_esp()


class EspOffload(Esp):
    name = "esp+offload"

    def up(self, family, mtu):
        load(f"esp{family}_offload")
        if not loaded(f"esp{family}_offload"):
            raise RuntimeError(f"this kernel has no esp{family}_offload")
        esp()
        return address("b", family)


class WireGuard(Plain):
    """As large as its packets may be: 1420 is for any path of 1500, v6 included."""

    name = "wireguard"

    def up(self, family, mtu):
        keys = {host: run("wg genkey") for host in HOSTS}
        inner = {"a": ("10.70.0.1/24", "fd70::1/64"), "b": ("10.70.0.2/24", "fd70::2/64")}
        for host in HOSTS:
            ip(host, "link add wg0 type wireguard")
            with open(f"/run/{host}.key", "w", opener=lambda p, f: os.open(p, f, 0o600)) as file:
                file.write(keys[host])
            for one in inner[host]:
                ip(host, f"addr add {one} dev wg0" + (" nodad" if ":" in one else ""))
        for host in HOSTS:
            other = OTHER[host]
            public = run("wg pubkey", feed=keys[other]).strip()
            there = address(other, family)
            there = f"[{there}]" if family == 6 else there
            allowed = ",".join(one.split("/")[0] for one in inner[other])
            run(
                f"wg set wg0 listen-port 51820 private-key /run/{host}.key peer {public} "
                f"allowed-ips {allowed} endpoint {there}:51820",
                host=host,
            )
            ip(host, f"link set wg0 mtu {mtu - 80} up")
        return inner["b"][family == 6].split("/")[0]

    def down(self):
        for host in HOSTS:
            ip(host, "link del wg0", check=False)


class Daemons(Plain):
    started = ()

    def down(self):
        for one in self.started:
            one.terminate()
        for one in self.started:
            one.wait()
        self.started = ()
        time.sleep(0.3)


class Tinc(Daemons):
    """1.0 as Debian has it, with AES and SHA-1, which its processor instructions help, in place of Blowfish."""

    name = "tinc"

    def up(self, family, mtu):
        for host in HOSTS:
            number = "1" if host == "a" else "2"
            folder = f"/run/tinc/{host}"
            os.makedirs(f"{folder}/hosts", exist_ok=True)
            write(
                f"{folder}/tinc.conf",
                f"Name={host}\nInterface=tinc0\nMode=router\nConnectTo={OTHER[host]}\n"
                f"AddressFamily={'ipv6' if family == 6 else 'ipv4'}\n",
            )
            write(
                f"{folder}/tinc-up",
                "#!/bin/sh\n"
                f"ip addr add 10.60.0.{number}/24 dev $INTERFACE\n"
                f"ip addr add fd60::{number}/64 dev $INTERFACE nodad\nip link set $INTERFACE up\n",
                0o700,
            )
            write(f"{folder}/rsa_key.priv", open(f"/cfg/tinc-{host}.key").read(), 0o600)
            for one in HOSTS:
                n = "1" if one == "a" else "2"
                write(
                    f"{folder}/hosts/{one}",
                    f"Address={address(one, family)}\nSubnet=10.60.0.{n}/32\n"
                    f"Subnet=fd60::{n}/128\nCipher=aes-128-cbc\nDigest=sha1\n"
                    + open(f"/cfg/tinc-{one}.pub").read(),
                )
        self.started = [
            subprocess.Popen(
                [
                    "ip",
                    "netns",
                    "exec",
                    host,
                    "tincd",
                    "-D",
                    "-c",
                    f"/run/tinc/{host}",
                    f"--pidfile=/run/tinc-{host}.pid",
                ],
                stdout=subprocess.DEVNULL,
                stderr=open(f"/run/tinc-{host}.log", "w"),
            )
            for host in HOSTS
        ]
        return "fd60::2" if family == 6 else "10.60.0.2"


class Nebula(Daemons):
    """1.6 has no IPv6 within: over v6 it carries v4."""

    name = "nebula"

    def up(self, family, mtu):
        for host, other in OTHER.items():
            number = "2" if host == "a" else "1"
            there = address(other, family)
            there = f"[{there}]" if family == 6 else there
            write(
                f"/run/nebula-{host}.yml",
                f"""\
pki: {{ca: /cfg/ca.crt, cert: /cfg/{host}.crt, key: /cfg/{host}.key}}
static_host_map: {{"10.50.0.{number}": ["{there}:4242"]}}
lighthouse: {{am_lighthouse: false, interval: 60, hosts: []}}
cipher: aes
listen: {{host: "{"[::]" if family == 6 else "0.0.0.0"}", port: 4242}}
tun: {{dev: neb1, mtu: {mtu - 200}, tx_queue: 500, drop_local_broadcast: false, drop_multicast: false}}
logging: {{level: warning, format: text}}
firewall: {{outbound: [{{port: any, proto: any, host: any}}], inbound: [{{port: any, proto: any, host: any}}]}}
""",
            )
        self.started = [
            subprocess.Popen(
                ["ip", "netns", "exec", host, "nebula", "-config", f"/run/nebula-{host}.yml"],
                stdout=open(f"/run/nebula-{host}.log", "w"),
                stderr=subprocess.STDOUT,
            )
            for host in HOSTS
        ]
        return "10.50.0.2"


PATHS = {kind.name: kind for kind in (Plain, Esp, EspOffload, WireGuard, Tinc, Nebula)}


def reachable(target, seconds=20):
    """Waits until b answers there; daemons take a while."""
    for _ in range(seconds):
        if run(["ping", "-c", "1", "-W", "1", target], host="a", check=False).find(" 1 received") >= 0:
            # Large ones have the path's MTU found out.
            run(["ping", "-c", "12", "-i", "0.3", "-s", "1400", "-W", "1", target], host="a", check=False)
            return
        time.sleep(0.2)
    raise RuntimeError(f"{target} does not answer")


def write(path, text, mode=0o644):
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, mode)
