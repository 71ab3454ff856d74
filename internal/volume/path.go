package volume

import (
	"path"
	"strings"
)

// Nothing is mounted on or below these: who may write a ClientMount must not be
// able to replace the system's own files. /var/run and /var/lock are other names
// of /run.
var systemTrees = []string{
	"/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/root", "/run", "/sbin", "/sys", "/usr",
	"/var/lock", "/var/run",
}

// Nothing is mounted on these, but below them it may be.
var systemDirectories = []string{
	"/home", "/media", "/mnt", "/opt", "/srv", "/tmp", "/var",
	"/var/cache", "/var/lib", "/var/log", "/var/spool", "/var/tmp",
}

const (
	maxPath = 4095 // PATH_MAX without the terminating zero
	maxName = 255  // NAME_MAX

	pathLengthRule = "at most 4095 bytes are allowed"

	pathPunctuation = "._/@:+=,%-"
)

// checkPath refuses a mount path that is dangerous or that a shell line could
// take for something else, and returns it clean. Symbolic links are not known
// here; whoever makes the target must not follow them.
func checkPath(field, p string, roots []string) (string, error) {
	switch {
	case p == "":
		return "", refused(field, p, "it is empty")
	case len(p) > maxPath:
		return "", refused(field, p, pathLengthRule)
	case p[0] != '/':
		return "", refused(field, p, "it must be absolute")
	}
	if i := strings.IndexByte(p, '$'); i >= 0 {
		return "", refused(field, p, "variable "+variableName(p[i:])+" is not known here")
	}
	if !only(p, pathPunctuation) {
		return "", refused(field, p, "a path is made of A-Z a-z 0-9 . _ / @ : + = , % -")
	}
	for name := range strings.SplitSeq(p, "/") {
		switch {
		case name == "." || name == "..":
			return "", refused(field, p, "it must not contain . or .. as a name")
		case len(name) > maxName:
			return "", refused(field, p, "at most 255 bytes are allowed in one name")
		}
	}

	p = path.Clean(p)
	if p == "/" {
		return "", refused(field, p, "nothing is mounted on /")
	}
	for _, dir := range systemTrees {
		if p == dir || below(p, dir) {
			return "", refused(field, p, "nothing is mounted on or below "+dir)
		}
	}
	for _, dir := range systemDirectories {
		if p == dir {
			return "", refused(field, p, "nothing is mounted on "+dir+" itself")
		}
	}
	for _, root := range roots {
		if below(p, path.Clean(root)) {
			return p, nil
		}
	}
	if len(roots) > 0 {
		return "", refused(field, p, "this node allows mounts below "+strings.Join(roots, ", ")+" only")
	}
	return p, nil
}

// below tells whether p is inside dir, by whole names. Both are clean.
func below(p, dir string) bool {
	rest, ok := strings.CutPrefix(p, dir)
	return ok && (dir == "/" && rest != "" || strings.HasPrefix(rest, "/"))
}
