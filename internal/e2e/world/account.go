package world

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

const rbac = "rbac.authorization.k8s.io"

// Role is a ClusterRole with these rules.
func Role(name string, rules []any) lab.Object {
	return lab.Object{"apiVersion": rbac + "/v1", "kind": "ClusterRole", "metadata": map[string]any{"name": name}, "rules": rules}
}

// Rule lets verbs be used on a resource.
func Rule(group, resource string, verbs ...any) any {
	return map[string]any{"apiGroups": []any{group}, "resources": []any{resource}, "verbs": verbs}
}

// Binding gives a ClusterRole to a service account.
func Binding(name, role, namespace, account string) lab.Object {
	return lab.Object{
		"apiVersion": rbac + "/v1", "kind": "ClusterRoleBinding", "metadata": map[string]any{"name": name},
		"roleRef":  map[string]any{"apiGroup": rbac, "kind": "ClusterRole", "name": role},
		"subjects": []any{map[string]any{"kind": "ServiceAccount", "name": account, "namespace": namespace}},
	}
}

// Grant gives a service account these rules until the test ends.
func (w *World) Grant(name, namespace, account string, rules []any) {
	w.tb.Helper()
	w.Apply(Role(name, rules), Binding(name, name, namespace, account))
	w.tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), w.Patience)
		defer cancel()
		for _, kind := range []string{"ClusterRoleBinding", "ClusterRole"} {
			if err := w.Cluster.Delete(ctx, kind, "", name); err != nil && !lab.IsNotFound(err) {
				w.tb.Error(err)
			}
		}
	})
}

// Account is a service account of one test, so that what happens to it disturbs no
// other. It is called like the node. Its daemon's token file is World.Token.
type Account struct {
	namespace string
	reads     string // path of a list, by which the server shows what the account may do
	world     *World
}

// Account makes one with a role, and the daemons that are started from here on use
// it. reads is the kind of what it may list in a namespace.
func (w *World) Account(accounts, role, reads, namespace string) *Account {
	w.tb.Helper()
	a := &Account{accounts, lab.Path(reads, namespace, ""), w}
	w.Apply(lab.Object{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": map[string]any{"name": w.Node, "namespace": accounts}})
	a.Bind(role)
	token := a.NewToken("1")
	a.Answers(token, http.StatusOK)
	w.Token = w.Write("token", token)
	return a
}

// User is the name by which the server knows the account.
func (a *Account) User() string { return "system:serviceaccount:" + a.namespace + ":" + a.world.Node }

// Bind gives it a role, which a deleted ClusterRoleBinding of its name takes away.
func (a *Account) Bind(role string) {
	a.world.tb.Helper()
	a.world.Apply(Binding(a.world.Node, role, a.namespace, a.world.Node))
}

// Token is the one in the token file.
func (a *Account) Token() []byte {
	a.world.tb.Helper()
	token, err := os.ReadFile(a.world.Token)
	a.world.Must(err)
	return token
}

// NewToken makes a secret that the control plane fills with a token, and returns
// when the server knows it too.
func (a *Account) NewToken(secret string) []byte {
	w := a.world
	w.tb.Helper()
	secret = w.Node + "-" + secret
	w.Apply(lab.Object{"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token", "metadata": map[string]any{
		"name": secret, "namespace": a.namespace, "annotations": map[string]any{"kubernetes.io/service-account.name": w.Node},
	}})
	o, err := w.Cluster.WaitFor(w.Context(w.Patience), "Secret", a.namespace, secret, func(o lab.Object) bool { return o.String("data", "token") != "" })
	w.Must(err)
	token, err := base64.StdEncoding.DecodeString(o.String("data", "token"))
	w.Must(err)
	a.Answers(token, http.StatusOK, http.StatusForbidden)
	return token
}

// Revoke deletes the secret of a token and returns when the server refuses it.
func (a *Account) Revoke(secret string, token []byte) {
	a.world.tb.Helper()
	a.world.Must(a.world.Cluster.Delete(a.world.Context(a.world.Patience), "Secret", a.namespace, a.world.Node+"-"+secret))
	a.Answers(token, http.StatusUnauthorized)
}

// Answers waits until the server answers a token's list with one of the codes: it
// remembers for some 10 s what was right before, and learns of what is new a moment
// later.
func (a *Account) Answers(token []byte, codes ...int) {
	w := a.world
	w.tb.Helper()
	c := w.Client(token)
	wait.Within(w.tb, w.Patience, fmt.Sprintf("an answer with one of %d", codes), func() bool {
		code := http.StatusOK
		_, err := c.Do(w.Context(w.Patience), http.MethodGet, a.reads, "", nil)
		if status := (*lab.StatusError)(nil); errors.As(err, &status) {
			code = status.Code
		} else if err != nil {
			return false
		}
		return slices.Contains(codes, code)
	})
}
