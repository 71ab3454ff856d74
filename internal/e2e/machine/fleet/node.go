package fleet

import (
	"fmt"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
)

// daemons are what is deployed; each is the name of a program, of its unit and
// of its directory below /etc.
var daemons = product.Names()

// Process is a unit's process: which it is, since when, and what it was told.
func (n *Node) Process(unit string) string {
	return n.Do(fmt.Sprintf(`p=$(systemctl show --value -p MainPID %[1]s); echo $p $(systemctl show --value -p ExecMainStartTimestampMonotonic %[1]s); [ $p = 0 ] || tr '\0' ' ' </proc/$p/cmdline`, unit))
}

// Sum is the SHA-256 of a file; "" when there is none.
func (n *Node) Sum(path string) string {
	sum, _, _ := strings.Cut(n.Do("sha256sum "+path+" 2>/dev/null || :"), " ")
	return sum
}

// Files lists all that lies in a node's file systems, each with its mode,
// owner, time of change and size. What systemd and rpm note for themselves is
// left out.
func (n *Node) Files() string {
	return n.Do(`find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /var/log -o -path /var/lib/rpm -o -path /var/lib/systemd \
		-o -path /var/cache -o -name 'systemd-private-*' \) -prune -o -not -type d -printf '%p %m %u:%g %C@ %s\n' | sort; find /var/lib/nnf-deploy /tmp /var/tmp -mindepth 1 -type d -not -path '*systemd-private*' 2>/dev/null; rpm -qa | sort`)
}

// Release says which release's programs the node has: its version; "none";
// or what it has of which.
func (n *Node) Release(releases ...*Release) string {
	var found []string
	for _, p := range programs {
		sum, version := n.Sum("/usr/bin/"+p), "none"
		for _, r := range releases {
			if r.Sums[p] == sum {
				version = r.Version
			}
		}
		if sum != "" && version == "none" {
			version = "unknown"
		}
		found = append(found, version)
	}
	if found[0] == found[1] && found[1] == found[2] {
		return found[0]
	}
	return fmt.Sprintf("%q of %q", found, programs)
}
