package identities

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
)

// GroupAdmission has ValidatingAdmissionPolicies in version v1 since Kubernetes 1.30.
const GroupAdmission = "admissionregistration.k8s.io"

// commandLine has the regular expressions for the texts of a data movement that the rabbit puts
// into a command line, which a shell of root reads. It is generated from what nnf-dm itself
// accepts: the options in its list, not those that its configuration adds.
//
//go:embed commandline.json
var commandLine []byte

// grammar is a regular expression that a text must match, and one that it must not match.
type grammar struct{ Match, Refuse string }

// allows returns the expression for a text in a field that the grammar allows.
func (g grammar) allows(field string) string {
	return fmt.Sprintf("%[1]s.matches(r'%[2]s') && !%[1]s.matches(r'%[3]s')", field, g.Match, g.Refuse)
}

// validation is an expression that must be true, and what the API server answers otherwise.
type validation struct{ expression, message string }

// policies returns the admission policies and their bindings. A policy applies to the accounts of
// single nodes only: other accounts, such as those that all nodes share, are not affected. If an
// expression cannot be evaluated, the request is refused.
//
// A policy sees the request, the object and the user, but no other object. So it cannot compare
// the user and group of a data movement with those of the workflow: Workflows as parameters of
// the binding would not do, because an expression must then be true for every parameter, and so
// would accept the name of a workflow that does not exist.
func policies() []Object {
	mounter, _ := product.Of("clientmountd")
	mover, _ := product.Of("nnf-dm")
	return append(policy(mounter, api.GroupDWS, []string{"clientmounts", "clientmounts/status"}, mountRules()),
		policy(mover, api.GroupNNF, []string{"nnfdatamovements"}, movementRules())...)
}

// PolicyName returns the name of the policy for the accounts of a daemon.
func PolicyName(d product.Daemon) string { return prefix + d.Name }

// policy returns a policy for writes of the daemon's accounts to these resources, and its
// binding.
func policy(d product.Daemon, group string, resources []string, rules []validation) []Object {
	var validations []any
	for _, r := range rules {
		validations = append(validations, Object{"expression": r.expression, "message": r.message, "reason": "Forbidden"})
	}
	user := strings.Replace(d.NodeAccount("*").User(), "*", "[^:]+", 1)
	p := object(GroupAdmission+"/v1", "ValidatingAdmissionPolicy", "", PolicyName(d))
	p["spec"] = Object{
		"failurePolicy": "Fail",
		// With the defaults of the API server, so that a change to any of them is a difference.
		"matchConstraints": Object{
			"matchPolicy": "Equivalent", "namespaceSelector": Object{}, "objectSelector": Object{},
			"resourceRules": []any{Object{
				"apiGroups": []any{group}, "apiVersions": []any{"*"}, "resources": list(resources), "scope": "*",
				"operations": []any{"CREATE", "UPDATE", "DELETE"},
			}},
		},
		"matchConditions": []any{Object{"name": "account-of-one-node", "expression": "request.userInfo.username.matches('^" + user + "$')"}},
		// The namespace of the account is the name of its node.
		"variables":   []any{Object{"name": "node", "expression": "request.userInfo.username.split(':')[2]"}},
		"validations": validations,
	}
	b := object(GroupAdmission+"/v1", "ValidatingAdmissionPolicyBinding", "", PolicyName(d))
	b["spec"] = Object{"policyName": PolicyName(d), "validationActions": []any{"Deny"}}
	return []Object{p, b}
}

// mountRules are the rules for ClientMounts. The API server itself ignores all changes to the
// status in requests for the object, and all others in requests for the status.
func mountRules() []validation {
	others := func(of string) string {
		return fmt.Sprintf("(has(%[1]s.metadata.finalizers) ? %[1]s.metadata.finalizers : []).filter(f, f != '%[2]s')", of, api.FinalizerClientMount)
	}
	return []validation{
		{"request.operation == 'UPDATE'", "a node may not create or delete ClientMounts"},
		{"request.namespace == variables.node", "a node may change ClientMounts in its own namespace only"},
		{"request.operation != 'UPDATE' || object.spec == oldObject.spec", "a node may not change the spec of a ClientMount"},
		{"request.operation != 'UPDATE' || " + same("metadata", "finalizers"),
			"a node may not change the metadata of a ClientMount, except for the finalizer " + api.FinalizerClientMount},
		{"request.operation != 'UPDATE' || " + others("object") + " == " + others("oldObject"),
			"a node may not change finalizers of a ClientMount other than " + api.FinalizerClientMount},
	}
}

// movementRules are the rules for data movements. Roles restrict the namespaces.
func movementRules() []validation {
	// before and after apply a check to the object before and after the request, if there is one.
	before := func(check string) string {
		return "(request.operation == 'CREATE' || " + strings.ReplaceAll(check, "OBJECT", "oldObject") + ")"
	}
	after := func(check string) string {
		return "(request.operation == 'DELETE' || " + strings.ReplaceAll(check, "OBJECT", "object") + ")"
	}
	both := func(check string) string { return before(check) + " && " + after(check) }

	var texts struct{ Path, DCPOptions, MPIRunOptions grammar }
	if err := json.Unmarshal(commandLine, &texts); err != nil {
		panic(err) // the file is part of the program
	}
	path := func(field string) string {
		return "has(object.spec." + field + ".path) && " + texts.Path.allows("object.spec."+field+".path")
	}
	options := func(g grammar, field string) string {
		field = "object.spec.userConfig." + field
		return "(!has(object.spec.userConfig) || !has(" + field + ") || " + g.allows(field) + ")"
	}

	own := fmt.Sprintf("(has(OBJECT.metadata.labels) && '%[1]s' in OBJECT.metadata.labels && OBJECT.metadata.labels['%[1]s'] == variables.node)", api.LabelInitiator)
	user := "(has(OBJECT.spec) && has(OBJECT.spec.userId) && OBJECT.spec.userId > 0 && has(OBJECT.spec.groupId) && OBJECT.spec.groupId > 0)"
	return []validation{
		{both(own), "a node may create, change and delete only data movements with its name in the label " + api.LabelInitiator},
		{both(user), "a node may create, change and delete only data movements of a user and group other than 0"},
		{"request.operation != 'CREATE' || !has(object.metadata.finalizers) && !has(object.metadata.ownerReferences)",
			"a node may not create data movements with finalizers or owners"},
		{"request.operation != 'CREATE' || " + path("source") + " && " + path("destination"),
			"a path of a data movement must be absolute, without .. and without characters that have a meaning for a shell"},
		{"request.operation != 'CREATE' || " + options(texts.DCPOptions, "dcpOptions") + " && " + options(texts.MPIRunOptions, "mpirunOptions"),
			"the options of a data movement must be those that nnf-dm accepts by default"},
		{"request.operation != 'UPDATE' || " + same("metadata"), "a node may not change the metadata of a data movement"},
		{"request.operation != 'UPDATE' || " + same("spec", "cancel"), "a node may change only cancel in the spec of a data movement"},
	}
}

// serverKeys are the keys of metadata that the API server changes itself with every update.
var serverKeys = []string{"generation", "managedFields", "resourceVersion"}

// same returns the expression for an object with the same values as before in a field, except for
// some of its keys.
func same(field string, except ...string) string {
	if field == "metadata" {
		except = append(except, serverKeys...)
	}
	keys := "['" + strings.Join(except, "', '") + "']"
	return fmt.Sprintf("(object.%[1]s.all(k, k in %[2]s || k in oldObject.%[1]s && object.%[1]s[k] == oldObject.%[1]s[k])"+
		" && oldObject.%[1]s.all(k, k in %[2]s || k in object.%[1]s))", field, keys)
}
