package credentials

import (
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/api"
)

// rule is what a daemon's role grants on a resource, with its subresource behind a
// slash. Without what it uses the daemon does not work; other verbs are in the
// role for older daemons.
type rule struct{ group, resource, used, other string }

// rules are those of packaging/manifests, which a test compares.
var rules = map[string][]rule{
	"clientmountd": {
		{api.GroupDWS, "clientmounts", "get list patch watch", "update"},
		{api.GroupDWS, "clientmounts/finalizers", "", "update"},
		{api.GroupDWS, "clientmounts/status", "patch", "get update"},
		{api.GroupNNF, "nnfstorageprofiles", "get", "list watch"},
	},
	"nnf-dm": {
		{api.GroupLUS, "lustrefilesystems", "list", "get watch"},
		{api.GroupDWS, "workflows", "get", "list"},
		{api.GroupDWS, "clientmounts", "list", "get"},
		{api.GroupDWS, "clientmounts/status", "", "get list"},
		{api.GroupDWS, "systemconfigurations", "get", "list watch"},
		{api.GroupNNF, "nnfdatamovements", "create delete get list patch watch", "update"},
		{api.GroupNNF, "nnfdatamovementprofiles", "list", "get watch"},
		{api.GroupNNF, "nnfdatamovements/finalizers", "", "update"},
		{api.GroupNNF, "nnfdatamovements/status", "", "get patch update"},
	},
}

// right is one verb on one resource, in all namespaces.
type right struct {
	group, resource, sub, verb string
	used                       bool
}

// String is the form of kubectl auth can-i and of our messages.
func (r right) String() string {
	s := r.verb + " " + r.resource + "." + r.group
	if r.sub != "" {
		s += "/" + r.sub
	}
	return s
}

// rightsOf are all of a program, those that it uses first.
func rightsOf(program string) (list []right) {
	for _, used := range []bool{true, false} {
		for _, r := range rules[program] {
			resource, sub, _ := strings.Cut(r.resource, "/")
			verbs := r.other
			if used {
				verbs = r.used
			}
			for verb := range strings.FieldsSeq(verbs) {
				list = append(list, right{r.group, resource, sub, verb, used})
			}
		}
	}
	return list
}
