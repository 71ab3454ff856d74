package safepath

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/text"
)

// The defaults, as comma-separated lists.
const (
	DefaultMountRoots   = "/mnt"         // where NNF mounts unless a profile sets $MOUNT_PATH
	DefaultMountOptions = "nosuid,nodev" // no set-user-ID programs and no device nodes of other users
)

// systemTrees are directories on and below which mounting is not allowed: the author of a
// ClientMount must not be able to replace files of the system. /var/run and /var/lock are
// other names of /run.
var systemTrees = []string{
	"/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/root", "/run", "/sbin", "/sys", "/usr",
	"/var/lock", "/var/run",
}

// systemDirectories are directories on which mounting is not allowed; below them it is.
var systemDirectories = []string{
	"/home", "/media", "/mnt", "/opt", "/srv", "/tmp", "/var",
	"/var/cache", "/var/lib", "/var/log", "/var/spool", "/var/tmp",
}

// stateDirectories contain state of the system (/var/spool/cron, /var/lib/rpm), so they
// cannot be in mount.roots.
var stateDirectories = []string{"/var", "/var/cache", "/var/lib", "/var/log", "/var/spool"}

// DenyMount returns why mounting at p, an absolute clean path, is not allowed, or "" if
// it is allowed.
func DenyMount(p string) string {
	if p == "/" {
		return "mounting on / is not allowed"
	}
	if dir := systemTree(p); dir != "" {
		return "mounting is not allowed on or below " + dir
	}
	if slices.Contains(systemDirectories, p) {
		return "mounting is not allowed on " + p + " itself"
	}
	return ""
}

func systemTree(p string) string {
	for _, dir := range systemTrees {
		if p == dir || Below(p, dir) {
			return dir
		}
	}
	return ""
}

// Within reports whether p is dir or below it. Both paths are clean.
func Within(p, dir string) bool { return p == dir || Below(p, dir) }

// Below reports whether p is below dir, by whole path components. Both paths are clean.
func Below(p, dir string) bool {
	rest, ok := strings.CutPrefix(p, dir)
	return ok && (dir == "/" && rest != "" || strings.HasPrefix(rest, "/"))
}

// MountPathRule describes what MountPathText accepts, for messages.
const MountPathRule = "a path consists of A-Z a-z 0-9 . _ / @ : + = , % -"

// MountPathText reports whether p has only characters without a special meaning in a
// shell or in the mount table.
func MountPathText(p string) bool { return text.Only(p, "._/@:+=,%-") }

const optionPunctuation = "._-:=+/@%"

// CheckMountRoots returns an error if the value of mount.roots is not valid.
func CheckMountRoots(roots []string) error {
	if len(roots) == 0 {
		return errors.New("the list is empty, so nothing could be mounted, accepted: at least one directory, by default " + strconv.Quote(DefaultMountRoots))
	}
	for i, root := range roots {
		switch {
		case !path.IsAbs(root) || path.Clean(root) != root || root == "/":
			return fmt.Errorf("%s is not accepted: the path must be absolute, below /, and without \"..\", \"//\" or a slash at the end", text.Quote(root))
		case !MountPathText(root):
			return fmt.Errorf("%s is not accepted: %s", text.Quote(root), MountPathRule)
		case systemTree(root) != "":
			return fmt.Errorf("%s is not accepted: mounting is not allowed on or below %s", text.Quote(root), systemTree(root))
		case slices.Contains(stateDirectories, root):
			return fmt.Errorf("%s is not accepted: it contains system files; use a separate directory, for example %s", text.Quote(root), strconv.Quote(root+"/nnf"))
		case slices.Contains(roots[:i], root):
			return fmt.Errorf("%s is in the list twice", text.Quote(root))
		}
	}
	return nil
}

// CheckMountOptions returns an error if the value of mount.options is not valid. An empty
// list means no options.
func CheckMountOptions(options []string) error {
	for i, o := range options {
		switch {
		case strings.Contains(o, ","):
			return fmt.Errorf("%s is not accepted: list each option as a separate entry, for example [\"nosuid\", \"nodev\"]", text.Quote(o))
		case o == "" || o[0] == '-' || len(o) > 256 || !text.Only(o, optionPunctuation):
			return fmt.Errorf("%s is not accepted: a mount option has 1 to 256 characters of A-Z a-z 0-9 . _ - : = + / @ %% and does not start with -", text.Quote(o))
		case slices.Contains(options[:i], o):
			return fmt.Errorf("%s is in the list twice", text.Quote(o))
		}
	}
	return nil
}
