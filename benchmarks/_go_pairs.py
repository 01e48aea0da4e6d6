"""Ten templates of a site, each in Go and in Jinja2, that write the same bytes."""

from __future__ import annotations

PAIRS: dict[str, tuple[str, str]] = {
    "etc/hostname": (
        "{{ .Id }}.cluster\n",
        "{{ id }}.cluster\n",
    ),
    "etc/issue": (
        '{{ .Id }}: image {{ .ImageName | default "none" }}, rack {{ .Tags.rack }}\n'
        "{{ range $name, $device := .NetDevs }}{{ $name }} {{ $device.Device }} {{ $device.IpCIDR }}\n"
        "{{ end }}",
        "{{ id }}: image {{ image_name or 'none' }}, rack {{ tags.rack }}\n"
        "{% for name, device in network_devices.items() %}\n"
        "{{ name }} {{ device.device }} {{ device.ip_cidr }}\n"
        "{% endfor %}",
    ),
    "etc/fstab": (
        "rootfs / tmpfs defaults 0 0\n"
        '{{ range .Resources.fstab }}{{ .spec }} {{ .file }} {{ .vfstype | default "nfs" }} '
        '{{ .mntops | default "defaults" }} 0 0\n'
        "{{ end }}",
        "rootfs / tmpfs defaults 0 0\n"
        "{% for it in resources.fstab %}\n"
        "{{ it.spec }} {{ it.file }} {{ it.get('vfstype') or 'nfs' }} "
        "{{ it.get('mntops') or 'defaults' }} 0 0\n"
        "{% endfor %}",
    ),
    "etc/network.conf": (
        "{{ range $name, $device := .NetDevs }}[{{ $name }}]\n"
        "Device={{ $device.Device }}\n"
        "{{ if $device.OnBoot.BoolDefaultTrue }}Boot=yes\n"
        "{{ end }}{{ if $device.Ipaddr }}Address={{ $device.Ipaddr }}\n"
        "Netmask={{ $device.Netmask }}\n"
        "{{ end }}{{ if $device.Gateway }}Gateway={{ $device.Gateway }}\n"
        "{{ end }}{{ range $key, $value := $device.Tags }}{{ $key | upper }}={{ $value }}\n"
        "{{ end }}{{ end }}",
        "{% for name, device in network_devices.items() %}\n"
        "[{{ name }}]\n"
        "Device={{ device.device }}\n"
        "{% if device.onboot | bool(true) %}\n"
        "Boot=yes\n"
        "{% endif %}\n"
        "{% if device.ipaddr %}\n"
        "Address={{ device.ipaddr }}\n"
        "Netmask={{ device.netmask }}\n"
        "{% endif %}\n"
        "{% if device.gateway %}\n"
        "Gateway={{ device.gateway }}\n"
        "{% endif %}\n"
        "{% for key, value in device.tags.items() %}\n"
        "{{ key | upper }}={{ value }}\n"
        "{% endfor %}\n"
        "{% endfor %}",
    ),
    "etc/sysconfig/gpu": (
        '{{ if eq .Tags.kind "gpu" }}DRIVER=nvidia\n'
        "{{ range $i := until 4 }}CARD{{ $i }}=/dev/nvidia{{ $i }}\n"
        "{{ end }}{{ else }}DRIVER=none\n"
        "{{ end }}SLOT={{ .Tags.slot }}\n",
        "{% if tags.kind == 'gpu' %}\n"
        "DRIVER=nvidia\n"
        "{% for i in range(4) %}\n"
        "CARD{{ i }}=/dev/nvidia{{ i }}\n"
        "{% endfor %}\n"
        "{% else %}\n"
        "DRIVER=none\n"
        "{% endif %}\n"
        "SLOT={{ tags.slot }}\n",
    ),
    "etc/chrony.conf": (
        "server {{ .Tags.ntp_server | default .Ipaddr }} iburst\nallow {{ .NetworkCIDR }}\n",
        "server {{ tags.get('ntp_server') or ipaddr }} iburst\nallow {{ network_cidr }}\n",
    ),
    "etc/genders": (
        '{{ .Id }} {{ join "," .Profiles }},rack={{ .Tags.rack }}{{ if .ClusterName }},cluster='
        "{{ lower .ClusterName }}{{ end }}\n",
        "{{ id }} {{ profiles | join(',') }},rack={{ tags.rack }}{% if cluster_name %},cluster="
        "{{ cluster_name | lower }}{% endif +%}\n",
    ),
    "etc/cmdline": (
        "{{ range $i, $word := .Kernel.Args }}{{ if $i }} {{ end }}{{ $word }}{{ end }} wwid="
        "{{ (index .NetDevs .PrimaryNetDev).Hwaddr }}\n",
        "{% for word in kernel.args %}{% if not loop.first %} {% endif %}{{ word }}{% endfor %} wwid="
        "{{ network_devices[primary_network].hwaddr }}\n",
    ),
    "etc/ipmi": (
        "user={{ .Ipmi.UserName }}\n"
        "address={{ .Ipmi.Ipaddr }}\n"
        "mask={{ .Ipmi.Netmask }}\n"
        "{{ if .Ipmi.Write.Bool }}write=1\n"
        "{{ else }}write=0\n"
        '{{ end }}vlan={{ .Ipmi.Tags.vlan | default "off" }}\n',
        "user={{ ipmi.username }}\n"
        "address={{ ipmi.ipaddr }}\n"
        "mask={{ ipmi.netmask }}\n"
        "{% if ipmi.write | bool %}\n"
        "write=1\n"
        "{% else %}\n"
        "write=0\n"
        "{% endif %}\n"
        "vlan={{ ipmi.tags.get('vlan') or 'off' }}\n",
    ),
    "etc/profile.d/site.sh": (
        '{{ $x := printf "%s-%s" .Tags.kind .Tags.rack }}export SITE_KIND={{ $x }}\n'
        "export SITE_NODE={{ .Id | upper }}\n"
        '{{ if or (eq .Tags.kind "gpu") (eq .Tags.kind "big") }}ulimit -l unlimited\n'
        "{{ end }}export SITE_HOME="
        '{{ (index .Resources.fstab 0).spec | trimPrefix "warewulf:" | replace "/" "_" }}\n',
        "{% set x = '%s-%s' % (tags.kind, tags.rack) %}\n"
        "export SITE_KIND={{ x }}\n"
        "export SITE_NODE={{ id | upper }}\n"
        "{% if tags.kind == 'gpu' or tags.kind == 'big' %}\n"
        "ulimit -l unlimited\n"
        "{% endif %}\n"
        "export SITE_HOME={{ resources.fstab[0].spec.removeprefix('warewulf:') | replace('/', '_') }}\n",
    ),
}
