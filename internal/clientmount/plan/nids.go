package plan

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// SameLustre tells whether two sources <NIDs>:/<file system>, as the mount table
// shows them, are the same file system: equal names, and the same set of NIDs
// however they are ordered, separated or written (tcp is tcp0). Anything that is
// no Lustre source is the same as nothing.
func SameLustre(a, b string) bool {
	nidsA, fsA, okA := cutSource(a)
	nidsB, fsB, okB := cutSource(b)
	return okA && okB && fsA == fsB && maps.Equal(nidSet(nidsA), nidSet(nidsB))
}

// LustreHosts lists the host names in the NIDs of a source, without addresses.
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

// ShownAs reports whether the kernel may show the source asked as the source
// shown, when its host names have these addresses: equal file system names, and
// each server that is shown is one that was asked for.
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

// cutSource splits at the first ":/", because what follows may be a directory
// of the file system and NIDs have no slash.
func cutSource(s string) (nids, fs string, ok bool) {
	nids, fs, ok = strings.Cut(s, ":/")
	fs = strings.TrimRight(fs, "/")
	return nids, fs, ok && nids != "" && fs != ""
}

// nidSet splits a list of NIDs. A comma separates the addresses of one server
// and a colon separates servers; which is which does not matter here.
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

// insideIPv6 tells whether a NID that reads so far like this is the beginning
// of an IPv6 address: hexadecimal groups, and no network yet.
func insideIPv6(s string) bool {
	group := s[strings.LastIndexByte(s, ':')+1:]
	return len(group) <= 4 && strings.Trim(s, "0123456789abcdefABCDEF:") == ""
}

// normalNID writes a NID in full: address@network with the network's number.
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
