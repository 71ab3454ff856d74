package apiserver

import (
	"encoding/base64"
	"errors"
	"net/http"
	"os"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

const (
	accountNamespace = "nnf-system"
	rbacGroup        = "rbac.authorization.k8s.io"
)

type rights map[string][]any // resource to verbs

// granted is what an installation grants to clientmountd.
func granted() rights {
	return rights{
		"clientmounts":            {"get", "list", "patch", "update", "watch"},
		"clientmounts/finalizers": {"update"},
		"clientmounts/status":     {"get", "patch", "update"},
		"nnfstorageprofiles":      {"get", "list", "watch"},
	}
}

func metadata(name, ns string) map[string]any {
	m := map[string]any{"name": name}
	if ns != "" {
		m["namespace"] = ns
	}
	return m
}

// useAccount gives the scene a service account of its own with the usual
// rights, so that what happens to it disturbs nobody else. All is called like
// the node. It returns the user name that the server knows it by.
func (s *env) useAccount() string {
	s.t.Helper()
	s.Apply(lab.Object{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(s.Node, accountNamespace)})
	s.setRights(granted())
	s.bind()
	s.Token = s.Write("token", s.newToken(s.Node+"-1"))
	c := s.tokenClient()
	wait.Within(s.t, soon, "the server grants", func() bool { return refused(c, s.Node) == 0 })
	return "system:serviceaccount:" + accountNamespace + ":" + s.Node
}

// setRights replaces the rules of the account's role.
func (s *env) setRights(r rights) {
	s.t.Helper()
	var rules []any
	for resource, verbs := range r {
		group := api.GroupDWS
		if resource == "nnfstorageprofiles" {
			group = api.GroupNNF
		}
		rules = append(rules, map[string]any{"apiGroups": []any{group}, "resources": []any{resource}, "verbs": verbs})
	}
	s.Apply(lab.Object{"apiVersion": rbacGroup + "/v1", "kind": "ClusterRole", "metadata": metadata(s.Node, ""), "rules": rules})
}

func (s *env) bind() {
	s.t.Helper()
	s.Apply(lab.Object{
		"apiVersion": rbacGroup + "/v1", "kind": "ClusterRoleBinding", "metadata": metadata(s.Node, ""),
		"roleRef":  map[string]any{"apiGroup": rbacGroup, "kind": "ClusterRole", "name": s.Node},
		"subjects": []any{map[string]any{"kind": "ServiceAccount", "name": s.Node, "namespace": accountNamespace}},
	})
}

// newToken makes a secret that the control plane fills with a token, and
// returns when the server knows it too.
func (s *env) newToken(secret string) (token []byte) {
	s.t.Helper()
	o := lab.Object{"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token", "metadata": metadata(secret, accountNamespace)}
	o["metadata"].(map[string]any)["annotations"] = map[string]any{"kubernetes.io/service-account.name": s.Node}
	s.Apply(o)
	wait.Within(s.t, soon, "the secret "+secret+" is filled", func() bool {
		got, err := s.Cluster.Get(s.Context(soon), "Secret", accountNamespace, secret)
		if err != nil {
			s.t.Fatal(err)
		}
		token, err = base64.StdEncoding.DecodeString(got.String("data", "token"))
		if err != nil {
			s.t.Fatal(err)
		}
		return len(token) > 0
	})
	c := s.Client(token)
	wait.Within(s.t, soon, "the server lets the new token in", func() bool { return refused(c, s.Node) != http.StatusUnauthorized })
	return token
}

// revoke deletes the secret of a token and returns when the server refuses it:
// it remembers for some 10 s that it was good.
func (s *env) revoke(secret string, token []byte) {
	s.t.Helper()
	if err := s.Cluster.Delete(s.Context(soon), "Secret", accountNamespace, secret); err != nil {
		s.t.Fatal(err)
	}
	c := s.Client(token)
	wait.Within(s.t, soon, "the server refuses the old token", func() bool { return refused(c, s.Node) == http.StatusUnauthorized })
}

// tokenClient is a client with the token that the daemon has.
func (s *env) tokenClient() *lab.Client {
	s.t.Helper()
	token, err := os.ReadFile(s.Token)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.Client(token)
}

// refused is the status code by which the server refuses a list, 0 when it
// grants it.
func refused(c *lab.Client, node string) int {
	ctx, cancel := contextWithin(soon)
	defer cancel()
	_, err := c.Do(ctx, http.MethodGet, lab.Path("ClientMount", node, ""), "", nil)
	status := (*lab.StatusError)(nil)
	if errors.As(err, &status) {
		return status.Code
	}
	return 0
}
