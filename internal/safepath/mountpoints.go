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

// The defaults, as a list separated by commas.
const (
	DefaultMountRoots   = "/mnt"         // where NNF mounts unless a profile sets $MOUNT_PATH
	DefaultMountOptions = "nosuid,nodev" // no set-user-ID programs and no device nodes of other people's making
)

// Nothing is mounted on or below these: the author of a ClientMount must not be
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

// stateDirectories hold what the system knows of itself (/var/spool/cron,
// /var/lib/rpm), so they cannot be roots as a whole.
var stateDirectories = []string{"/var", "/var/cache", "/var/lib", "/var/log", "/var/spool"}

// DenyMount returns why nothing is ever mounted at p, an absolute clean path, or ""
// if the system has no claim to it.
func DenyMount(p string) string {
	if p == "/" {
		return "nothing is mounted on /"
	}
	if dir := systemTree(p); dir != "" {
		return "nothing is mounted on or below " + dir
	}
	if slices.Contains(systemDirectories, p) {
		return "nothing is mounted on " + p + " itself"
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

// Within reports whether p is dir or is inside it. Both are clean.
func Within(p, dir string) bool { return p == dir || Below(p, dir) }

// Below reports whether p is inside dir, by whole names. Both are clean.
func Below(p, dir string) bool {
	rest, ok := strings.CutPrefix(p, dir)
	return ok && (dir == "/" && rest != "" || strings.HasPrefix(rest, "/"))
}

// MountPathRule says what MountPathText accepts.
const MountPathRule = "a path is made of A-Z a-z 0-9 . _ / @ : + = , % -"

// MountPathText reports whether p has only characters that no shell line and no
// table of mounts could take for something else.
func MountPathText(p string) bool { return text.Only(p, "._/@:+=,%-") }

const optionPunctuation = "._-:=+/@%"

// CheckMountRoots refuses a list of directories below which mounts are to be allowed.
func CheckMountRoots(roots []string) error {
	if len(roots) == 0 {
		return errors.New("the list is empty, so that nothing could be mounted, accepted: at least one directory, by default " + strconv.Quote(DefaultMountRoots))
	}
	for i, root := range roots {
		switch {
		case !path.IsAbs(root) || path.Clean(root) != root || root == "/":
			return fmt.Errorf("%s is not accepted: an absolute path below / without \"..\", \"//\" or a slash at the end", text.Quote(root))
		case !MountPathText(root):
			return fmt.Errorf("%s is not accepted: %s", text.Quote(root), MountPathRule)
		case systemTree(root) != "":
			return fmt.Errorf("%s is not accepted: nothing is mounted on or below %s", text.Quote(root), systemTree(root))
		case slices.Contains(stateDirectories, root):
			return fmt.Errorf("%s is not accepted: it holds files of the system; name a directory of its own, for example %s", text.Quote(root), strconv.Quote(root+"/nnf"))
		case slices.Contains(roots[:i], root):
			return fmt.Errorf("%s is in the list twice", text.Quote(root))
		}
	}
	return nil
}

// CheckMountOptions refuses a list of mount options that are to be given to every
// file system. An empty list is accepted: no options.
func CheckMountOptions(options []string) error {
	for i, o := range options {
		switch {
		case strings.Contains(o, ","):
			return fmt.Errorf("%s is not accepted: each option is an entry of its own, for example [\"nosuid\", \"nodev\"]", text.Quote(o))
		case o == "" || o[0] == '-' || len(o) > 256 || !text.Only(o, optionPunctuation):
			return fmt.Errorf("%s is not accepted: a mount option has 1 to 256 of A-Z a-z 0-9 . _ - : = + / @ %% and does not start with -", text.Quote(o))
		case slices.Contains(options[:i], o):
			return fmt.Errorf("%s is in the list twice", text.Quote(o))
		}
	}
	return nil
}
