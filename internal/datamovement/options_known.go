package datamovement

import (
	"slices"
	"strconv"
	"strings"
)

// dcpTool is dcp of mpiFileUtils (dcp(1)). Left out are what reads or writes
// further files (--input, DAOS), and what chooses the identity.
var dcpTool = tool{
	name: "dcp", field: fieldDCPOptions, short: true, identity: dcpIdentity,
	options: map[string]form{
		"-b": size, "--blocksize": size, "--bufsize": size,
		"-k": size, "--chunksize": size,
		"-p": {}, "--preserve": {},
		"-s": {}, "--direct": {},
		"-S": {}, "--sparse": {},
		"-L": {}, "--dereference": {},
		"-P": {}, "--no-dereference": {},
		"-X": xattrs, "--xattrs": xattrs,
		"--open-noatime": {},
		"--progress":     number(3600),
		"-v":             {}, "--verbose": {},
		"-q": {}, "--quiet": {},
	},
}

// mpirunTool is mpirun of Open MPI 4 and 5 (mpirun(1)). It runs as root on the
// rabbit: left out is everything that names a program, a file, a host or an
// environment variable.
var mpirunTool = tool{
	name: "mpirun", field: fieldMPIRunOptions,
	options: map[string]form{
		"-n": number(65536), "--np": number(65536), "-c": number(65536),
		"-N": number(65536), "--npernode": number(65536), "--npersocket": number(65536), "--ppn": number(65536),
		"--bind-to": placement, "--map-by": placement, "--rank-by": placement,
		"--oversubscribe": {}, "--nooversubscribe": {}, "--use-hwthread-cpus": {},
		"--report-bindings": {}, "--display-map": {}, "--display-allocation": {},
		"--timeout": number(7 * 86400),
		"--mca":     component,
	},
}

var (
	size      = form{1, func(v []string) bool { return sizeText(v[0]) }, "a size such as 4MB"}
	xattrs    = form{1, func(v []string) bool { return slices.Contains(xattrKinds, v[0]) }, "one of " + strings.Join(xattrKinds, " ")}
	placement = form{1, func(v []string) bool { return placementText(v[0]) }, "a placement such as core or ppr:2:node"}
	component = form{2, componentText, "one of the parameters " + strings.Join(components, " ") + " and a list of names"}
)

var xattrKinds = []string{"none", "all", "non-lustre", "libattr"}

// components are parameters of Open MPI that choose transports and networks.
// Others name programs that mpirun starts, or files that it reads.
var components = []string{"btl", "btl_tcp_if_exclude", "btl_tcp_if_include", "mtl", "oob_tcp_if_exclude", "oob_tcp_if_include", "pml"}

func number(most int) form {
	return form{1, func(v []string) bool {
		n, err := strconv.Atoi(v[0])
		return err == nil && n >= 0 && n <= most
	}, "a number of at most " + strconv.Itoa(most)}
}

// sizeText is a decimal number with a unit or none.
func sizeText(s string) bool {
	n := strings.TrimLeft(s, "0123456789")
	if len(n) == len(s) || len(s)-len(n) > 19 {
		return false
	}
	unit := strings.ToUpper(n)
	return unit == "" || slices.Contains([]string{"B", "K", "KB", "M", "MB", "G", "GB", "T", "TB"}, unit)
}

// placementText leaves out what reads a file: rankfile and seq.
func placementText(s string) bool {
	l := strings.ToLower(s)
	return only(s, ":,=-") && !strings.Contains(l, "file") && !strings.Contains(l, "seq")
}

func componentText(v []string) bool {
	// ^ in front of a list means all but these.
	return slices.Contains(components, v[0]) && only(strings.TrimPrefix(v[1], "^"), ",._-")
}

// dcpIdentity tells whether getopt_long(3) could take the word for --uid or
// --gid, or for their letters: names may be abbreviated, letters joined.
func dcpIdentity(w string) bool {
	name, _, _ := strings.Cut(w, "=")
	if strings.HasPrefix(name, "--") {
		return len(name) > 2 && (strings.HasPrefix("--uid", name) || strings.HasPrefix("--gid", name))
	}
	if name == "" || name[0] != '-' {
		return false
	}
	for i := 1; i < len(w); i++ {
		switch w[i] {
		case 'U', 'G':
			return true
		case 'b', 'i', 'k', 'X': // the rest is their value
			return false
		}
	}
	return false
}
