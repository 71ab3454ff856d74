// Package datamovement contains the decisions of the Copy Offload service of a
// compute node: which callers are authorised, which path on the rabbit corresponds
// to a path of the compute node, how a request becomes an NnfDataMovement, and how
// its status is reported.
//
// The package is pure: it uses its arguments only and reads nothing, so that all of
// it can be tested without a server.
//
// It must not know how the machine mounts (package node), nor what a storage
// profile does (package clientmount/plan). It treats all texts of callers and of
// the API server as hostile, because the rabbit puts most of them into a shell
// command that runs as root.
package datamovement

import (
	"path"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/compute-daemons/compute-daemons/internal/text"
)

// WorkflowRef names a workflow.
type WorkflowRef struct{ Name, Namespace string }

// Request is a request to copy, from either version of the protocol. -1 slots means
// "as in the profile", 0 means none.
type Request struct {
	Workflow            WorkflowRef
	Source, Destination string
	Dryrun              bool
	DCPOptions          string
	MPIRunOptions       string
	LogStdout           bool
	StoreStdout         bool
	Slots, MaxSlots     int32
	Profile             string // empty: the default profile
	Key                 string // chosen by the caller: a repeated request with the same key creates no second movement
	Batch               string // handle of the batch that the request is part of

	// Set by Check. Before that, the paths are in no mount and in no file system.
	from, to cleanPath
}

// maxSlots is more than any rabbit has. The number is written to an MPI hostfile.
const maxSlots = 65536

// Names of fields in the protocol.
const (
	fieldSource        = "source"
	fieldDestination   = "destination"
	fieldDCPOptions    = "dcpOptions"
	fieldMPIRunOptions = "mpirunOptions"
	fieldSlots         = "slots"
	fieldMaxSlots      = "maxSlots"
	fieldProfile       = "profile"
	fieldUID           = "uid"
	fieldKey           = "request_key"
	fieldWorkflow      = "workflow"
)

// Check validates the request without any request to the API server, and parses its
// paths. The error is a Fault that names the field.
func (r *Request) Check(o *Options) (err error) {
	if err := r.Workflow.Check(); err != nil {
		return err
	}
	if r.from, err = parsePath(fieldSource, r.Source); err != nil {
		return err
	}
	if r.to, err = parsePath(fieldDestination, r.Destination); err != nil {
		return err
	}
	if err := o.CheckDCP(r.DCPOptions); err != nil {
		return err
	}
	if err := o.CheckMPIRun(r.MPIRunOptions); err != nil {
		return err
	}
	for _, s := range []struct {
		field string
		value int32
	}{{fieldSlots, r.Slots}, {fieldMaxSlots, r.MaxSlots}} {
		if s.value < -1 || s.value > maxSlots {
			return refused(s.field, strconv.Itoa(int(s.value)), "allowed are -1 (as in the profile), 0 (none) and 1 to 65536")
		}
	}
	if r.Slots > 0 && r.MaxSlots > 0 && r.MaxSlots < r.Slots {
		return refused(fieldMaxSlots, strconv.Itoa(int(r.MaxSlots)), "it is less than slots, "+strconv.Itoa(int(r.Slots)))
	}
	if r.Profile != "" && !dnsName(r.Profile) {
		return refused(fieldProfile, r.Profile, nameRule)
	}
	if r.Key != "" && !labelValue(r.Key) {
		return refused(fieldKey, r.Key, "a key consists of 1 to 63 characters A-Z a-z 0-9 . _ - and starts and ends with a letter or digit")
	}
	return nil
}

const (
	nameRule      = "a name consists of 1 to 253 characters a-z 0-9 - . and starts and ends with a letter or digit"
	namespaceRule = "a namespace consists of 1 to 63 characters a-z 0-9 - and starts and ends with a letter or digit"
)

// Check returns an error if w cannot be the name of a workflow.
func (w WorkflowRef) Check() error {
	switch {
	case w.Name == "" && w.Namespace == "":
		return Invalid(fieldWorkflow, "workflow is missing: set its name and namespace, which a job has in DW_WORKFLOW_NAME and DW_WORKFLOW_NAMESPACE")
	// The name becomes the value of a label, which must be shorter than the name of an object.
	case !dnsName(w.Name) || len(w.Name) > 63:
		return refused("workflow.name", w.Name, "the name of a workflow consists of 1 to 63 characters a-z 0-9 - . and starts and ends with a letter or digit")
	case !dnsLabel(w.Namespace):
		return refused("workflow.namespace", w.Namespace, namespaceRule)
	}
	return nil
}

// CheckOptional is Check for requests in which the workflow, its name or its namespace
// may be missing, as in requests of early clients.
func (w WorkflowRef) CheckOptional() error {
	if w.Name == "" {
		w.Name = "x"
	}
	if w.Namespace == "" {
		w.Namespace = "x"
	}
	return w.Check()
}

// CheckUID returns an error if uid cannot be the name of a movement. It accepts names
// of all users: the lookup treats movements of other users as missing.
func CheckUID(uid string) error {
	if uid == "" {
		return Invalid(fieldUID, "uid is missing: use the uid that Create returned")
	}
	if !dnsName(uid) {
		return refused(fieldUID, uid, nameRule)
	}
	return nil
}

const (
	maxPath = 4095 // PATH_MAX without the terminating NUL
	maxName = 255  // NAME_MAX

	pathPunctuation = "%+,-./:=@^_"
	pathRule        = "only letters, digits and % + , - . / : = @ ^ _ are allowed, because the rabbit inserts the path into a command line"
)

// cleanPath is an absolute path without . and .. components, without doubled slashes,
// and without characters that have a meaning for a shell. Slash is set if the path
// ended with a slash: it then means the contents of a directory, not the directory
// itself.
type cleanPath struct {
	Path  string // never ends with /, except for the root itself
	Slash bool
}

// String returns the path with its final slash.
func (p cleanPath) String() string {
	if p.Slash && p.Path != "/" {
		return p.Path + "/"
	}
	return p.Path
}

// parsePath cleans a path. It refuses a path that could leave its directory, or that
// could be more than one word on the rabbit's command line. It does not resolve
// symbolic links: the rabbit follows them with the IDs of the user.
func parsePath(field, p string) (cleanPath, error) {
	switch {
	case p == "":
		return cleanPath{}, Invalid(field, "%s is missing", field)
	case len(p) > maxPath:
		return cleanPath{}, refused(field, p, "at most 4095 bytes are allowed")
	case p[0] != '/':
		return cleanPath{}, refused(field, p, "it must be an absolute path")
	case !pathCharacters(p):
		return cleanPath{}, refused(field, p, pathRule)
	}
	for name := range strings.SplitSeq(p, "/") {
		switch {
		case name == "..":
			return cleanPath{}, refused(field, p, "it must not contain .. as a component")
		case len(name) > maxName:
			return cleanPath{}, refused(field, p, "at most 255 bytes are allowed in one component")
		}
	}
	// A final dot means the contents of the directory, like a final slash.
	return cleanPath{Path: path.Clean(p), Slash: strings.HasSuffix(p, "/") || strings.HasSuffix(p, "/.")}, nil
}

// parseRoot returns a clean mount point, or "" if it cannot be used: a root of /
// would contain everything.
func parseRoot(p string) string {
	root, err := parsePath("root", p)
	if err != nil || root.Path == "/" {
		return ""
	}
	return root.Path
}

// pathCharacters allows letters and digits of all languages in file names. All their
// bytes are above ASCII, and no shell treats those as syntax. Unicode spaces are not
// letters.
func pathCharacters(p string) bool {
	if !utf8.ValidString(p) {
		return false
	}
	for _, r := range p {
		switch {
		case r < utf8.RuneSelf:
			if !text.Alphanumeric(byte(r)) && strings.IndexByte(pathPunctuation, byte(r)) < 0 {
				return false
			}
		case !unicode.IsLetter(r) && !unicode.IsMark(r) && !unicode.IsNumber(r):
			return false
		}
	}
	return true
}

// within returns the rest of p below dir, compared by components: "" for dir itself,
// otherwise a text that starts with a slash. Both paths must be clean.
func within(p, dir string) (rest string, ok bool) {
	if dir == "/" {
		if p == "/" {
			return "", true
		}
		return p, true
	}
	rest, ok = strings.CutPrefix(p, dir)
	return rest, ok && (rest == "" || rest[0] == '/')
}

// dnsName reports whether s can be the name of an object: RFC 1123 labels,
// separated by dots.
func dnsName(s string) bool {
	if len(s) > validation.DNS1123SubdomainMaxLength {
		return false
	}
	for part := range strings.SplitSeq(s, ".") {
		if !dnsLabel(part) {
			return false
		}
	}
	return true
}

// dnsLabel reports whether s can be the name of a namespace: an RFC 1123 label.
func dnsLabel(s string) bool { return len(validation.IsDNS1123Label(s)) == 0 }

// labelValue reports whether s is not empty and can be the value of a label.
func labelValue(s string) bool { return s != "" && len(validation.IsValidLabelValue(s)) == 0 }
