# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The inventory plugin gpumesh.fleet.fleet: the fleet file in, hosts and groups out."""

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet
short_description: The machines of a fleet file, with what their clouds and their mesh say of them
author:
  - The gpumesh.fleet maintainers (@gpumesh)
description:
  - Reads a fleet file, asks every cloud and the mesh in it at the same time, and lists every declared machine, whether it exists or not.
  - With no credentials or no network it lists what is declared, says so in one warning, and succeeds.
    A machine is in the group C(missing) only if its cloud answered and does not have it.
  - A mesh whose controller is a machine of the fleet is asked through SSH at that machine, as soon as its cloud has told where it
    is, as its administrator account and against the host key in the fleet's known_hosts; sudo must not ask for a password there.
    With C(mesh.endpoint) and C(mesh.token) it is asked there directly instead. Variables of groups are not known yet when an
    inventory is read, so the private keys offered are those that lie beside the public ones in C(defaults.ssh_keys) (C(x) for
    C(x.pub)), and those of your ssh_config and your agent. C(ansible_host), C(ansible_port), C(ansible_user) and
    C(ansible_ssh_private_key_file) under the machine's own C(vars) are followed, unless they are expressions. Where
    C(ssh_sources) is empty, so that nobody reaches it in public, it is reached at its address in the mesh.
    A controller that does not exist, does not run or has no network yet is one warning, and no failure.
  - A credential that a cloud refuses, or a cloud that answers with an error, is handled as O(providers) says under C(when_sick).
  - The fleet file is documented in full by its JSON Schema, C(docs/fleet.schema.json) in the collection.
  - Groups are C(fleet), C(enabled), C(disabled), C(running), C(missing), C(undeclared), C(gpu), C(mesh), C(mesh_online), C(mesh_offline),
    C(mesh_unauthorized) and C(mesh_undeclared), which always exist, and C(provider_<name>), C(zone_<zone>), C(gpu_<model>) and C(tag_<tag>).
    What is no letter or digit in the name of a zone or model is an underscore in the name of its group.
  - A host in C(undeclared) or C(mesh_undeclared) is in no other group and has no C(ansible_host).
    With C(mesh.strict), C(ansible_connection) of those in C(mesh_undeclared) is P(gpumesh.fleet.refused#connection), so that no play
    reaches one, not even by its name.
  - C(mesh) holds the machines whose node is known, and everything below concerns these. C(mesh_online) and C(mesh_offline) hold
    those that are authorised, by what the control plane tells; where it tells nothing they are in neither. C(mesh_unauthorized)
    holds declared machines that the control plane does not let take part.
  - A machine's member is the one with its node id, where that is known beforehand (C(node_id), or the controller's, with which the
    network id begins), else the one that bears its name, which is the control plane's and nothing a node can choose.
  - Host variables are C(fleet_name), the fleet, and C(fleet_known_hosts), the path of its own known_hosts;
    C(fleet_machine), a dictionary of everything declared for the machine;
    C(fleet_provider), its provider;
    C(fleet_state), one of V(creating), V(running), V(stopping), V(stopped), V(deleting), V(missing) (enabled, but not there),
    V(disabled) (not enabled, and not there), V(unmanaged) (bare metal), V(external), V(undeclared) (of mesh members)
    and V(unknown) (its cloud did not answer);
    C(fleet_gpu_model) and C(fleet_gpu_count), its GPUs;
    C(fleet_hourly_usd) and C(fleet_monthly_usd), what it costs now in US dollars, or null where that is not known;
    C(fleet_simulated), whether it is in a sandbox and in no real cloud;
    C(fleet_user) and C(fleet_ssh_key_files), its administrator account and the files of the public keys declared for it;
    C(fleet_ssh_sources), the networks its SSH port may be reached from;
    C(fleet_public_ip), its public address;
    C(fleet_mesh), of declared machines where a mesh is declared, a dictionary of C(network), C(controller), C(domain),
    C(addressing), C(name), its name in the mesh (C(<machine>.<domain>)), and C(members_known), whether the control plane has told, now
    or in a remembered answer, who is a member;
    C(fleet_mesh_ip) and C(fleet_mesh_node_id), its address in the mesh, in the form of C(mesh.addressing), and its node id there;
    C(fleet_instance), a dictionary of what its cloud says of it (C(id), C(name), C(cloud_state), C(zone), C(type), C(image), C(created),
    C(public_ip), C(public_ipv6), C(private_ip), C(labels)), or null;
    C(fleet_mesh_member), a dictionary of what the control plane of the mesh says of it (C(node_id), C(authorized), C(online), C(addresses),
    C(version), C(last_seen), C(latency_ms), C(physical_address), and C(simulated), whether that control plane is a sandbox), or null;
    C(fleet_host_key_alias), the name its SSH host keys are filed under in C(fleet_known_hosts), or null where that has none of them;
    C(fleet_host_key_planted), whether its SSH host key is the one-time key it was given at birth, to be replaced at first contact;
    and C(fleet_stale), whether all this is from an earlier answer.
  - The variable C(fleet_file) of all hosts is the path of the fleet file.
  - C(ansible_host) is the address in the mesh where the member is authorised and online and C(mesh.connect) is V(mesh), else the
    public one.
    C(ansible_user), C(ansible_port) and C(ansible_ssh_common_args) make ssh check the host key against the fleet's own known_hosts.
  - What a machine declares under C(vars) is set last, so it wins.
  - What a cloud says is never templated.
requirements:
  - pydantic
  - hcloud, google-auth and requests, for the clouds in use
extends_documentation_fragment:
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
options:
  plugin:
    description: Says that this file is for this plugin.
    type: str
    required: true
    choices: [gpumesh.fleet.fleet]
  fleet:
    description: Name of the fleet. Every cloud object it owns carries it in the label C(gpumesh-fleet).
    type: str
    required: true
  budget:
    description: What the fleet may cost. Used when changes are planned; C(usd_per_eur) is the rate of C(fleet_hourly_usd) as well.
    type: dict
    suboptions:
      hourly_usd:
        description: Refuse a plan that costs more than this many US dollars per hour.
        type: float
        required: true
      usd_per_eur:
        description: US dollars for one euro.
        type: float
        default: 1.2
  providers:
    description:
      - Settings of each cloud in use, by its name, V(hetzner) or V(gcp).
      - All take C(endpoint), the base URL of the API, for a proxy or the sandbox,
        and C(when_sick), what to do when the cloud answers with an error. V(fail), the default, gives no inventory.
        V(stale) goes on with the cloud's last answer, for which O(cache) must be true, with a cache plugin that stores files.
        V(partial) goes on with what is declared.
      - V(hetzner) takes C(token), V(gcp) takes C(project) and C(credentials_file).
      - A secret is taken from the environment with C({{ lookup('env', 'NAME') }}), the only expression understood here.
    type: dict
    default: {}
  mesh:
    description: The ZeroTier network the fleet shares.
    type: dict
    suboptions:
      network:
        description: Network id, 16 hexadecimal digits.
        type: str
        required: true
      controller:
        description: Who controls it, V(central_v1), V(central_v2), or the name of the machine that runs the controller.
        type: str
        required: true
      domain:
        description: Last part of the names of mesh members, which are C(<machine>.<domain>). One label of a DNS name.
        type: str
        default: zt
      addressing:
        description:
          - Which address of a member is its mesh address.
          - V(rfc4193) and V(6plane) are computed from its node id, and so are known before it exists. V(managed) is the first address
            that the control plane has assigned to it.
        type: str
        choices: [rfc4193, 6plane, managed]
        default: rfc4193
      connect:
        description: Where Ansible connects to a member that is online, at its mesh address or at its public one.
        type: str
        choices: [mesh, public]
        default: mesh
      strict:
        description:
          - No connection is made to a member that is not declared. Each such host gets
            P(gpumesh.fleet.refused#connection) as its C(ansible_connection), which always fails with one sentence that says why.
        type: bool
        default: false
      token:
        description: API token of ZeroTier Central. Of a controller of your own only needed with C(endpoint).
        type: str
      endpoint:
        description: Base URL of the control plane's API. With it a controller of your own is asked directly, and not through SSH.
        type: str
      when_sick:
        description: What to do when the control plane answers with an error, as for O(providers).
        type: str
        choices: [fail, stale, partial]
        default: fail
  defaults:
    description: Values for every machine that does not say otherwise.
    type: dict
    suboptions:
      user:
        description: Administrator account on every machine.
        type: str
        default: admin
      ssh_keys:
        description: Files of public SSH keys, relative to the fleet file.
        type: list
        elements: str
        default: []
      ssh_sources:
        description: Networks from which the public SSH port may be reached.
        type: list
        elements: str
        default: ['0.0.0.0/0', '::/0']
      ssh_port:
        description: Port of the SSH server.
        type: int
        default: 22
  machines:
    description: The machines, by name. Which fields one has depends on its C(provider); the JSON Schema has them all.
    type: dict
    default: {}
  machines_dir:
    description: Folder with one file a machine, named after it, relative to the fleet file.
    type: str
  known_hosts:
    description: The fleet's own known_hosts, relative to the fleet file. By default C(~/.ssh/gpumesh/<fleet>.known_hosts).
    type: str
"""

EXAMPLES = r"""
# fleet.yml, and how to look at it:
#
#   ansible-inventory -i fleet.yml --graph
#   ansible-inventory -i fleet.yml --host scheelite
plugin: gpumesh.fleet.fleet
fleet: minerals
budget: {hourly_usd: 6}
providers:
  hetzner: {token: "{{ lookup('env', 'HCLOUD_TOKEN') }}"}
  gcp: {project: my-project, when_sick: stale}
mesh: {network: db4344343b14b903, controller: cinnabar, domain: zt, strict: true, when_sick: stale}
defaults: {user: admin, ssh_keys: [~/.ssh/id_ed25519.pub]}
machines:
  cinnabar: {provider: hetzner, type: cx33, location: fsn1, image: debian-13, tags: [controller], enabled: true}
  scheelite: {provider: gcp, type: n1-standard-8, zone: us-central1-c, gpu: {model: t4}, vars: {note: "{{ inventory_hostname }}"}}
  demo-box: {provider: baremetal, address: 192.0.2.10, gpu: {model: rtx5090, count: 4}}
  stibnite: {provider: external, node_id: 8046d53400}

# Groups and variables of your own, over the variables of each host:
groups:
  big: fleet_gpu_count > 2
keyed_groups:
  - {prefix: image, key: fleet_machine.image | default('')}
compose:
  rack: "'cloud' if fleet_instance else 'home'"

# Ask the clouds at most every ten minutes (ansible-inventory --flush-cache asks at once):
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: ~/.cache/gpumesh
cache_timeout: 600
"""

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable, get_cache_plugin

try:
    from ansible.template import trust_as_template as _trust

    def _distrust(value: str) -> str:
        return value

except ImportError:  # ansible-core 2.18 trusts what is not marked, newer ones only what is
    from ansible.utils.unsafe_proxy import wrap_var as _distrust

    def _trust(value: str) -> str:
        return value


try:
    from ..module_utils._fleet import hosts, live, spec_file
    from ..module_utils._fleet.clock import SystemClock
    from ..module_utils._fleet.errors import SpecError
    from ..module_utils._fleet.mesh import connect
    from ..module_utils._fleet.providers import KINDS
    from ..module_utils._fleet.snapshot import Outcome, Snapshot, key, settle, source_key
except ImportError as exc:
    MISSING: ImportError | None = exc
else:
    MISSING = None

if TYPE_CHECKING:
    from ..module_utils._fleet.spec import FleetSpec

_FILE_NAMES = ("fleet.yml", "fleet.yaml")
_FILE_ENDINGS = (".fleet.yml", ".fleet.yaml")
_CACHE_OPTIONS = (("_uri", "cache_connection"), ("_prefix", "cache_prefix"))


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    """The machines of a fleet file."""

    NAME = "gpumesh.fleet.fleet"

    def verify_file(self, path: str) -> bool:
        """Take fleet.yml, fleet.yaml, and what ends in .fleet.yml or .fleet.yaml."""
        if not super().verify_file(path):
            return False
        name = os.path.basename(path)
        if name in _FILE_NAMES or name.endswith(_FILE_ENDINGS):
            return True
        self.display.vvv(
            f"{self.NAME} declines {path}: a fleet file is called fleet.yml or <name>.fleet.yml (or .yaml)"
        )
        return False

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """Fill the inventory."""
        super().parse(inventory, loader, path, cache)
        if MISSING:
            raise AnsibleParserError(
                f"the Python package {MISSING.name or MISSING} is missing on the control machine. Install it with pip."
            ) from MISSING
        try:
            documents = spec_file.documents(path)
            spec = spec_file.parse(documents, KINDS, os.environ)
        except SpecError as exc:
            raise AnsibleParserError(str(exc)) from exc
        self._set_options(spec)
        cache_key = f"{self.get_cache_key(path)}_{key(spec, documents, os.environ)}"
        outcome = self._remembered(cache_key) if cache else None
        if outcome is None:
            outcome = self._ask(spec, cache_key)
        # Playbooks hand it to the module gpumesh.fleet.fleet, so nobody has to name the file twice.
        inventory.set_variable("all", "fleet_file", os.path.abspath(path))
        known = outcome.snapshot
        self._fill(
            hosts.inventory(
                spec,
                known.listings,
                known.members,
                stale=outcome.stale,
                simulated_mesh=known.simulated_mesh,
            )
        )

    def _set_options(self, spec: FleetSpec) -> None:
        """Take Ansible's own options from the file, which is read already; to Ansible's loader a big one is hard work."""
        options = {"plugin": self.NAME, "fleet": spec.fleet, **_each(_trust, spec.inventory_options)}
        self.set_options(direct=options, var_options=self._vars)
        if self.get_option("cache"):
            self.load_cache_plugin()

    def _remembered(self, cache_key: str) -> Outcome | None:
        """What an earlier run was answered, if the cache has it."""
        if not self.get_option("cache"):
            return None
        snapshot = Snapshot.from_json(self._cache.get(cache_key))
        return Outcome(snapshot, frozenset(), (), ()) if snapshot else None

    def _ask(self, spec: FleetSpec, cache_key: str) -> Outcome:
        """Ask the clouds and the mesh, and remember what they say."""
        seen = live.look(spec, KINDS, SystemClock(), mesh=connect)
        fresh = Snapshot(seen.listings, seen.members, seen.simulated_mesh)
        keeps = bool(self.get_option("cache"))
        outcome = settle(spec, fresh, seen.errors, self._last_answers(spec, seen.errors) if keeps else {})
        if outcome.failures:
            raise AnsibleParserError("\n".join(outcome.failures))
        if outcome.notes:
            what = (
                "showing what is declared"
                if not outcome.stale
                else "showing what is declared and what was known"
            )
            self.display.warning(f"fleet {spec.fleet}: {what}. " + " ".join(outcome.notes))
        if keeps:
            if not seen.errors:
                self._cache[cache_key] = fresh.to_json()
            self._keep_last_answers(spec, fresh)
        return outcome

    def _memory(self) -> Any:
        """The cache plugin once more, without an end: what a cloud said last is wanted most when it has been long."""
        options = {name: self.get_option(option) for name, option in _CACHE_OPTIONS}
        given = {name: value for name, value in options.items() if value is not None}
        return get_cache_plugin(self.get_option("cache_plugin"), _timeout=0, **given)

    def _last_answers(self, spec: FleetSpec, sources: Mapping[str, Any]) -> dict[str, Snapshot]:
        memory = self._memory()
        found = {name: Snapshot.from_json(memory.get(self._last_key(spec, name))) for name in sources}
        return {name: snapshot for name, snapshot in found.items() if snapshot}

    def _keep_last_answers(self, spec: FleetSpec, fresh: Snapshot) -> None:
        memory = self._memory()
        for source in fresh.sources:
            memory[self._last_key(spec, source)] = fresh.only(source).to_json()
        memory.set_cache()

    def _last_key(self, spec: FleetSpec, source: str) -> str:
        return f"{self.NAME}_last_{source}_{source_key(spec, source, os.environ)}"

    def _fill(self, found: Mapping[str, hosts.Host]) -> None:
        for group in hosts.ALWAYS:
            self.inventory.add_group(group)
        known = set(hosts.ALWAYS)
        options = {name: self.get_option(name) for name in ("compose", "groups", "keyed_groups")}
        for name, host in found.items():
            self.inventory.add_host(name)
            for group in host.groups:
                if group not in known:
                    known.add(group)
                    self.inventory.add_group(group)
                self.inventory.add_child(group, name)
            for variable, value in host.variables.items():
                self.inventory.set_variable(name, variable, _each(_as_data, value))
            for variable, value in host.own.items():
                self.inventory.set_variable(name, variable, _each(_trust, value))
            if any(options.values()):
                self._construct(name, options)

    def _construct(self, name: str, options: Mapping[str, Any]) -> None:
        strict = self.get_option("strict")
        variables = self.inventory.get_host(name).get_vars()
        self._set_composite_vars(options["compose"], variables, name, strict)
        self._add_host_to_composed_groups(options["groups"], variables, name, strict)
        self._add_host_to_keyed_groups(options["keyed_groups"], variables, name, strict)


def _as_data(text: str) -> str:
    """The text, never to be evaluated. Where there is nothing to evaluate it needs no mark, which would end up in all output."""
    return _distrust(text) if "{" in text else _trust(text)


def _each(change: Callable[[str], str], value: Any) -> Any:
    """The value with every text in it changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {name: _each(change, part) for name, part in value.items()}
    if isinstance(value, list):
        return [_each(change, part) for part in value]
    return value
