package plan

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// lustre plans a Lustre client mount, which has no block device on this node.
func (p *Plan) lustre(cm *dws.ClientMount, m *dws.Mount, profile *nnf.StorageProfile, o Options) error {
	client, ost := &profile.Data.Lustre.Client, profile.Data.Lustre.OST.VariableOverride
	for _, overrides := range []map[string]string{client.VariableOverride, ost} {
		if err := checkOverrides(overrides); err != nil {
			return err
		}
	}
	p.Lustre = Lustre{MGS: m.Device.Lustre.MGSAddresses, FSName: m.Device.Lustre.FileSystemName}
	if err := p.lustreNames("$MGS_NID", ost["$MGS_NID"], "$FSNAME", ost["$FSNAME"]); err != nil {
		return err
	}
	v := newVariables(p.lustreVariables(cm, m, ost), client.VariableOverride)
	// The client's overrides change what is mounted, so they also change what the mount
	// table shows.
	nids, err := v.expand(client.VariableOverride["$MGS_NID"], everything)
	if err != nil {
		return err
	}
	fsname, err := v.expand(client.VariableOverride["$FS_NAME"], everything)
	if err != nil {
		return err
	}
	if err := p.lustreNames("$MGS_NID", nids, "$FS_NAME", fsname); err != nil {
		return err
	}
	if v, err = p.mountPath(m, v, o); err != nil {
		return err
	}

	c := &client.CommandLines
	up := sequence{steps: make([]Step, 0, 4)}
	up.hooks("preMount", failPreMount, v, c.PreMount)
	up.verb("mount", Mount, failMount, v, c.Mount, p.mountProgram(o)...)
	up.permissions(m)
	up.serversFile(cm, m, o)
	up.hooks("postMount", failPostMount, v, c.PostMount)

	down := sequence{steps: make([]Step, 0, 4)}
	down.hooks("preUnmount", failPreUnmount, v, c.PreUnmount)
	down.unmount(p, v, c.Mount, c.Unmount)
	down.hooks("postUnmount", failPostUnmount, v, c.PostUnmount)

	p.Mount, p.Unmount = up.steps, down.steps
	if up.err != nil {
		return up.err
	}
	return down.err
}

// lustreNames replaces the names with non-empty overrides.
func (p *Plan) lustreNames(nidKey, nids, fsKey, fsname string) error {
	if nids != "" {
		if !nidList(nids) {
			return badOverride(nidKey, nids, nidRule)
		}
		p.Lustre.MGS = nids
	}
	if fsname != "" {
		if !lustreName(fsname) {
			return badOverride(fsKey, fsname, lustreNameRule)
		}
		p.Lustre.FSName = fsname
	}
	return nil
}

// lustreVariables returns the variables of Lustre commands and hooks. Client mounts have
// no Lustre targets, so most values are constants.
func (p *Plan) lustreVariables(cm *dws.ClientMount, m *dws.Mount, ost map[string]string) []variable {
	i := m.Device.DeviceReference.Data
	kind, backfs := "OST", "none"
	if t := ost["$TARGET_TYPE"]; text.Only(t, "") && t != "" {
		kind = strings.ToUpper(t)
	}
	if b := ost["$BACKFS"]; text.Only(b, "") && b != "" {
		backfs = b
	}
	out := append(common(cm, m),
		data("$MGS_NID", p.Lustre.MGS), data("$FS_NAME", p.Lustre.FSName),
		data("$INDEX", strconv.Itoa(i)), data("$BACKFS", backfs),
		data("$TARGET_NAME", fmt.Sprintf("%s-%s%04d", p.Lustre.FSName, kind, i)),
		data("$DEVICE", "/dev/mock"), data("$ZVOL_NAME", "/dev/mock"))
	for _, key := range []string{"$NUM_MDTS", "$NUM_MGTS", "$NUM_MGTMDTS", "$NUM_OSTS", "$NUM_NNFNODES"} {
		out = append(out, data(key, "0"))
	}
	return out
}

// SameLustre reports whether two sources <NIDs>:/<file system>, as the mount table shows
// them, are the same file system: the names are equal, and so are the sets of NIDs,
// whatever their order, separators and notation (tcp is tcp0). It returns false for a
// text that is not a Lustre source.
func SameLustre(a, b string) bool {
	nidsA, fsA, okA := cutSource(a)
	nidsB, fsB, okB := cutSource(b)
	return okA && okB && fsA == fsB && maps.Equal(nidSet(nidsA), nidSet(nidsB))
}

// LustreHosts returns the host names in the NIDs of a source, without addresses.
func LustreHosts(source string) []string {
	nids, _, _ := cutSource(source)
	var hosts []string
	for nid := range nidSet(nids) {
		host, _, _ := strings.Cut(nid, "@")
		if _, err := netip.ParseAddr(host); err != nil && strings.ContainsFunc(host, isLetter) && !strings.Contains(host, ":") {
			hosts = append(hosts, host)
		}
	}
	slices.Sort(hosts)
	return hosts
}

func isLetter(r rune) bool { return r >= 'a' && r <= 'z' }

// ShownAs reports whether the kernel may show the requested source asked as the source
// shown, if its host names have these addresses: the file system names are equal, and
// each server in shown is in asked.
func ShownAs(asked, shown string, addresses map[string][]string) bool {
	nidsA, fsA, okA := cutSource(asked)
	nidsB, fsB, okB := cutSource(shown)
	if !okA || !okB || fsA != fsB {
		return false
	}
	may := nidSet(nidsA)
	for nid := range nidSet(nidsA) {
		host, network, _ := strings.Cut(nid, "@")
		for _, address := range addresses[host] {
			may[normalNID(address+"@"+network)] = true
		}
	}
	for nid := range nidSet(nidsB) {
		if !may[nid] {
			return false
		}
	}
	return true
}

// cutSource splits a source at the first ":/": NIDs have no slash, and a directory of
// the file system may follow.
func cutSource(s string) (nids, fs string, ok bool) {
	nids, fs, ok = strings.Cut(s, ":/")
	fs = strings.TrimRight(fs, "/")
	return nids, fs, ok && nids != "" && fs != ""
}

// nidSet splits a list of NIDs. A comma separates the addresses of one server and a colon
// separates servers; nidSet does not distinguish them.
func nidSet(s string) map[string]bool {
	out := map[string]bool{}
	start := 0
	add := func(end int) {
		if nid := s[start:end]; nid != "" {
			out[normalNID(nid)] = true
		}
		start = end + 1
	}
	for i := 0; i < len(s); i++ {
		if s[i] == ',' || s[i] == ':' && !insideIPv6(s[start:i]) {
			add(i)
		}
	}
	add(len(s))
	return out
}

// insideIPv6 reports whether s is the start of a NID with an IPv6 address: hexadecimal
// groups without a network.
func insideIPv6(s string) bool {
	group := s[strings.LastIndexByte(s, ':')+1:]
	return len(group) <= 4 && strings.Trim(s, "0123456789abcdefABCDEF:") == ""
}

// normalNID returns the full form of a NID: address@network with the network's number.
func normalNID(s string) string {
	addr, net, _ := strings.Cut(strings.ToLower(s), "@")
	if net == "" {
		net = "tcp"
	}
	if c := net[len(net)-1]; c < '0' || c > '9' {
		net += "0"
	}
	return addr + "@" + net
}
