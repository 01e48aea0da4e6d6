// Records what Go's text/template and sprig write: the expected values of the tests of Go templates.
//
//	go run . < ../cases.json > ../recorded.json
//
// It reads {"nodes": [...], "conf": {...}, "cases": [{"name", "node", "template"}]} and adds to each case "output"
// (or "outputs", when the template makes files) or "error". The types are those that templates of Warewulf 4 see, by
// name and kind; the functions beside sprig's are written after their documentation.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path"
	"sort"
	"strconv"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig/v3"
)

type WWbool string

func (b WWbool) truth(unset bool) bool {
	switch strings.ToLower(string(b)) {
	case "unset", "delete", "undef", "--", "nil", "0.0.0.0":
		return false
	case "":
		return unset
	case "yes":
		return true
	case "no":
		return false
	}
	v, err := strconv.ParseBool(strings.ToLower(string(b)))
	if err != nil {
		return unset
	}
	return v
}
func (b WWbool) Bool() bool            { return b.truth(false) }
func (b WWbool) BoolDefaultTrue() bool { return b.truth(true) }

type KernelConf struct {
	Version string   `json:"version,omitempty"`
	Args    []string `json:"args,omitempty"`
}
type IpmiConf struct {
	UserName   string            `json:"username,omitempty"`
	Password   string            `json:"password,omitempty"`
	Ipaddr     net.IP            `json:"ipaddr,omitempty"`
	Gateway    net.IP            `json:"gateway,omitempty"`
	Netmask    net.IP            `json:"netmask,omitempty"`
	Port       string            `json:"port,omitempty"`
	Interface  string            `json:"interface,omitempty"`
	EscapeChar string            `json:"escapechar,omitempty"`
	Write      WWbool            `json:"write,omitempty"`
	Template   string            `json:"template,omitempty"`
	Tags       map[string]string `json:"tags,omitempty"`
}
type NetDev struct {
	Type       string            `json:"type,omitempty"`
	OnBoot     WWbool            `json:"onbot,omitempty"`
	Device     string            `json:"device,omitempty"`
	Hwaddr     string            `json:"hwaddr,omitempty"`
	Ipaddr     net.IP            `json:"ipaddr,omitempty"`
	Netmask    net.IP            `json:"netmask,omitempty"`
	Gateway    net.IP            `json:"gateway,omitempty"`
	Ipaddr6    net.IP            `json:"ipaddr6,omitempty"`
	PrefixLen6 string            `json:"prefixlen6,omitempty"`
	Gateway6   net.IP            `json:"gateway6,omitempty"`
	MTU        string            `json:"mtu,omitempty"`
	Tags       map[string]string `json:"tags,omitempty"`
	primary    bool
}

func (d *NetDev) Primary() bool { return d.primary }
func (d *NetDev) IpCIDR() string {
	if d.Ipaddr == nil || d.Netmask == nil || d.Ipaddr.IsUnspecified() {
		return ""
	}
	n := net.IPNet{IP: d.Ipaddr, Mask: net.IPMask(d.Netmask.To4())}
	return n.String()
}
func (d *NetDev) IpCIDR6() string {
	bits, err := strconv.Atoi(d.PrefixLen6)
	if d.Ipaddr6 == nil || d.Ipaddr6.IsUnspecified() || d.Ipaddr6.To4() != nil || err != nil || bits < 0 || bits > 128 {
		return ""
	}
	return d.Ipaddr6.String() + "/" + d.PrefixLen6
}

type Partition struct {
	Number              string `json:"number,omitempty"`
	SizeMiB             string `json:"size_mib,omitempty"`
	StartMiB            string `json:"start_mib,omitempty"`
	TypeGuid            string `json:"type_guid,omitempty"`
	Guid                string `json:"guid,omitempty"`
	WipePartitionEntryP *bool  `json:"wipe_partition_entry,omitempty"`
	ShouldExistP        *bool  `json:"should_exist,omitempty"`
	ResizeP             *bool  `json:"resize,omitempty"`
	id                  string
}

func (p *Partition) Id() string               { return p.id }
func (p *Partition) WipePartitionEntry() bool { return says(p.WipePartitionEntryP) }
func (p *Partition) ShouldExist() bool        { return says(p.ShouldExistP) }
func (p *Partition) Resize() bool             { return says(p.ResizeP) }

type Disk struct {
	WipeTableP *bool                 `json:"wipe_table,omitempty"`
	Partitions map[string]*Partition `json:"partitions,omitempty"`
	id         string
}

func (d *Disk) Id() string      { return d.id }
func (d *Disk) WipeTable() bool { return says(d.WipeTableP) }
func (d *Disk) PartitionList() (list []*Partition) {
	for _, each := range d.Partitions {
		list = append(list, each)
	}
	number := func(p *Partition) int {
		n, err := strconv.Atoi(p.Number)
		if err != nil {
			return 1 << 30
		}
		return n
	}
	sort.Slice(list, func(i, j int) bool {
		if number(list[i]) != number(list[j]) {
			return number(list[i]) < number(list[j])
		}
		return list[i].id < list[j].id
	})
	return list
}

type FileSystem struct {
	Format          string   `json:"format,omitempty"`
	Path            string   `json:"path,omitempty"`
	WipeFileSystemP *bool    `json:"wipe_filesystem,omitempty"`
	Label           string   `json:"label,omitempty"`
	Uuid            string   `json:"uuid,omitempty"`
	Options         []string `json:"options,omitempty"`
	MountOptions    string   `json:"mount_options,omitempty"`
	id              string
}

func (f *FileSystem) Id() string           { return f.id }
func (f *FileSystem) WipeFileSystem() bool { return says(f.WipeFileSystemP) }

func says(b *bool) bool { return b != nil && *b }

type Node struct {
	id             string
	Discoverable   WWbool                 `json:"discoverable,omitempty"`
	AssetKey       string                 `json:"asset key,omitempty"`
	Profiles       []string               `json:"profiles,omitempty"`
	Comment        string                 `json:"comment,omitempty"`
	ClusterName    string                 `json:"cluster name,omitempty"`
	ImageName      string                 `json:"image name,omitempty"`
	Ipxe           string                 `json:"ipxe template,omitempty"`
	RuntimeOverlay []string               `json:"runtime overlay,omitempty"`
	SystemOverlay  []string               `json:"system overlay,omitempty"`
	Kernel         *KernelConf            `json:"kernel,omitempty"`
	Ipmi           *IpmiConf              `json:"ipmi,omitempty"`
	Init           string                 `json:"init,omitempty"`
	Root           string                 `json:"root,omitempty"`
	NetDevs        map[string]*NetDev     `json:"network devices,omitempty"`
	Tags           map[string]string      `json:"tags,omitempty"`
	PrimaryNetDev  string                 `json:"primary network,omitempty"`
	Disks          map[string]*Disk       `json:"disks,omitempty"`
	FileSystems    map[string]*FileSystem `json:"filesystems,omitempty"`
	Resources      map[string]interface{} `json:"resources,omitempty"`
}

func (n *Node) Id() string { return n.id }
func (n *Node) DiskList() (list []*Disk) {
	for _, name := range sorted(n.Disks) {
		list = append(list, n.Disks[name])
	}
	return list
}
func (n *Node) FileSystemList() (list []*FileSystem) {
	for _, name := range sorted(n.FileSystems) {
		list = append(list, n.FileSystems[name])
	}
	return list
}

func sorted[T any](m map[string]T) (names []string) {
	for name := range m {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// What the top level has lost: see the facts on the copy of a node.
func (n Node) copied() Node {
	devices := map[string]*NetDev{}
	for name, each := range n.NetDevs {
		device := *each
		device.primary = false
		devices[name] = &device
	}
	n.NetDevs = devices
	disks := map[string]*Disk{}
	for name, each := range n.Disks {
		disk := *each
		disk.id = ""
		disks[name] = &disk
	}
	n.Disks = disks
	filesystems := map[string]*FileSystem{}
	for name, each := range n.FileSystems {
		filesystem := *each
		filesystem.id = ""
		filesystems[name] = &filesystem
	}
	n.FileSystems = filesystems
	return n
}

func (n *Node) complete(id string) {
	n.id = id
	if n.Kernel == nil {
		n.Kernel = &KernelConf{}
	}
	if n.Ipmi == nil {
		n.Ipmi = &IpmiConf{}
	}
	if n.Ipmi.Tags == nil {
		n.Ipmi.Tags = map[string]string{}
	}
	if n.Tags == nil {
		n.Tags = map[string]string{}
	}
	for name, each := range n.NetDevs {
		each.primary = name == n.PrimaryNetDev
		if each.Tags == nil {
			each.Tags = map[string]string{}
		}
	}
	for name, each := range n.Disks {
		each.id = name
		for label, part := range each.Partitions {
			part.id = label
		}
	}
	for name, each := range n.FileSystems {
		each.id = name
	}
	for name, each := range n.Resources {
		n.Resources[name] = whole(each)
	}
}

// Whole numbers of YAML are int.
func whole(v interface{}) interface{} {
	switch v := v.(type) {
	case float64:
		if v == float64(int(v)) {
			return int(v)
		}
	case []interface{}:
		for i := range v {
			v[i] = whole(v[i])
		}
	case map[string]interface{}:
		for k := range v {
			v[k] = whole(v[k])
		}
	}
	return v
}

type WarewulfConf struct {
	Port           int  `json:"port"`
	Secure         bool `json:"secure"`
	UpdateInterval int  `json:"update_interval"`
}
type DHCPConf struct {
	Enabled    bool   `json:"enabled"`
	RangeStart string `json:"range_start"`
	RangeEnd   string `json:"range_end"`
	Template   string `json:"template"`
}
type PathsConf struct {
	Sysconfdir  string `json:"sysconfdir"`
	WWClientdir string `json:"wwclientdir"`
}
type SSHConf struct {
	KeyTypes []string `json:"key_types"`
}

type TemplateStruct struct {
	Id, Hostname, BuildSource, Overlay                   string
	Ipaddr, IpCIDR, Netmask, Network, NetworkCIDR        string
	Ipaddr6, PrefixLen6, IpCIDR6, Network6, NetworkCIDR6 string
	Ipv6                                                 bool
	Warewulf                                             WarewulfConf
	Dhcp                                                 DHCPConf
	Paths                                                PathsConf
	Ssh                                                  SSHConf
	AllNodes                                             []*Node
	ThisNode                                             *Node
	Container, ContainerName                             string
	Node
}

type Conf struct {
	Ipaddr       string       `json:"ipaddr"`
	IpCIDR       string       `json:"ip_cidr"`
	Netmask      string       `json:"netmask"`
	Network      string       `json:"network"`
	NetworkCIDR  string       `json:"network_cidr"`
	Ipaddr6      string       `json:"ipaddr6"`
	PrefixLen6   string       `json:"prefixlen6"`
	IpCIDR6      string       `json:"ip_cidr6"`
	Network6     string       `json:"network6"`
	NetworkCIDR6 string       `json:"network_cidr6"`
	Ipv6         bool         `json:"ipv6"`
	Warewulf     WarewulfConf `json:"warewulf"`
	Dhcp         DHCPConf     `json:"dhcp"`
	Paths        PathsConf    `json:"paths"`
	Ssh          SSHConf      `json:"ssh"`
}

type Output struct {
	Name    string `json:"name"`
	Content string `json:"content"`
	Link    string `json:"link,omitempty"`
}
type Case struct {
	Name     string   `json:"name"`
	Node     string   `json:"node"`
	Template string   `json:"template"`
	Output   *string  `json:"output,omitempty"`
	Outputs  []Output `json:"outputs,omitempty"`
	Error    string   `json:"error,omitempty"`
}
type Input struct {
	Nodes json.RawMessage   `json:"nodes"`
	Conf  Conf              `json:"conf"`
	Files map[string]string `json:"files"`
	Cases []Case            `json:"cases"`
}

var errAborted = errors.New("aborted")

func newline(s string) string { return strings.TrimSuffix(s, "\n") }

func escape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '/':
			b.WriteByte('-')
		case c == '_' || c == ':' || (c == '.' && i > 0) || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String()
}

func run(c *Case, input *Input, nodes []*Node) {
	var buffer bytes.Buffer
	slots := []Output{{}}
	cut := func() {
		slots[len(slots)-1].Content += buffer.String()
		buffer.Reset()
	}
	funcs := sprig.TxtFuncMap()
	for name, f := range map[string]interface{}{
		"Include":     func(name string) string { return newline(input.Files[name]) },
		"IncludeFrom": func(image, name string) string { return newline(input.Files[image+":"+name]) },
		"IncludeBlock": func(name, marker string) string {
			text, ok := input.Files[name]
			if !ok {
				return marker
			}
			var before []string
			for _, line := range strings.Split(text, "\n") {
				if strings.Contains(line, marker) {
					break
				}
				before = append(before, line)
			}
			return strings.Join(append(before, marker), "\n")
		},
		"file": func(name string) string {
			cut()
			slots = append(slots, Output{Name: name})
			return ""
		},
		"softlink": func(target string) string {
			slots[len(slots)-1].Link = target
			return ""
		},
		"nobackup": func() string { return "" },
		"abort":    func() (string, error) { return "", errAborted },
		"basename": path.Base,
		"inc":      func(i int) int { return i + 1 },
		"dec":      func(i int) int { return i - 1 },
		"UniqueField": func(sep string, index int, text string) string {
			seen := map[string]bool{}
			var kept []string
			for _, line := range strings.Split(text, "\n") {
				fields := strings.Split(line, sep)
				if index < len(fields) && fields[index] != "" {
					if seen[fields[index]] {
						continue
					}
					seen[fields[index]] = true
				}
				kept = append(kept, line)
			}
			return strings.Join(kept, "\n")
		},
		"SystemdEscape": escape,
		"SystemdEscapePath": func(s string) string {
			var words []string
			for _, word := range strings.Split(s, "/") {
				if word != "" && word != "." {
					words = append(words, word)
				}
			}
			if len(words) == 0 {
				return "-"
			}
			return escape(strings.Join(words, "/"))
		},
	} {
		funcs[name] = f
	}
	parsed, err := template.New("overlay.ww").Funcs(funcs).Parse(c.Template)
	if err != nil {
		c.Error = "parse: " + err.Error()
		return
	}
	var this *Node
	for _, node := range nodes {
		if node.id == c.Node {
			this = node
		}
	}
	conf := input.Conf
	data := TemplateStruct{
		Id: this.id, Hostname: this.id, BuildSource: "/overlay/t.ww", Overlay: "o",
		Ipaddr: conf.Ipaddr, IpCIDR: conf.IpCIDR, Netmask: conf.Netmask, Network: conf.Network, NetworkCIDR: conf.NetworkCIDR,
		Ipaddr6: conf.Ipaddr6, PrefixLen6: conf.PrefixLen6, IpCIDR6: conf.IpCIDR6, Network6: conf.Network6,
		NetworkCIDR6: conf.NetworkCIDR6, Ipv6: conf.Ipv6, Warewulf: conf.Warewulf, Dhcp: conf.Dhcp, Paths: conf.Paths, Ssh: conf.Ssh,
		AllNodes: nodes, ThisNode: this, Container: this.ImageName, ContainerName: this.ImageName, Node: this.copied(),
	}
	err = parsed.Execute(&buffer, data)
	if errors.Is(err, errAborted) {
		c.Outputs = []Output{}
		c.Error = "aborted"
		return
	}
	if err != nil {
		c.Error = err.Error()
		return
	}
	cut()
	if len(slots) == 1 && slots[0].Link == "" {
		c.Output = &slots[0].Content
		return
	}
	if len(slots) > 1 && slots[0].Link == "" {
		slots = slots[1:]
	}
	c.Outputs = slots
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func main() {
	all, err := io.ReadAll(os.Stdin)
	if err != nil {
		panic(err)
	}
	var input Input
	if err := json.Unmarshal(all, &input); err != nil {
		panic(err)
	}
	cases := input.Cases
	for i := range cases {
		// Fresh each time: a template may change what it is given.
		var data []struct {
			Id   string `json:"id"`
			Node Node   `json:"node"`
		}
		if err := json.Unmarshal(input.Nodes, &data); err != nil {
			panic(err)
		}
		var nodes []*Node
		for i := range data {
			data[i].Node.complete(data[i].Id)
			nodes = append(nodes, &data[i].Node)
		}
		run(&cases[i], &input, nodes)
	}
	for i := range cases { // one a line, so that a difference is one
		var line bytes.Buffer
		encoder := json.NewEncoder(&line)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(cases[i]); err != nil {
			panic(err)
		}
		fmt.Print([]string{",", "["}[btoi(i == 0)], line.String())
	}
	fmt.Println("]")
}
