package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"

	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// accounts creates service accounts and tokens on the API server.
type accounts struct {
	cluster *lab.Cluster
	dir     string // for kubeconfigs
}

// token creates a token of an account in a Secret with the account's name, and returns it.
// An existing Secret is replaced, so the server no longer accepts the token in it (after
// 10 s, during which it caches the result of the check).
func (a *accounts) token(ctx context.Context, account product.Account) ([]byte, error) {
	if err := a.cluster.Delete(ctx, "Secret", account.Namespace, account.Name); err != nil && !lab.IsNotFound(err) {
		return nil, err
	}
	_, err := a.cluster.Create(ctx, lab.Object{"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token", "metadata": map[string]any{
		"name": account.Name, "namespace": account.Namespace, "annotations": map[string]any{"kubernetes.io/service-account.name": account.Name},
	}})
	if err != nil {
		return nil, err
	}
	o, err := a.cluster.WaitFor(ctx, "Secret", account.Namespace, account.Name, func(o lab.Object) bool { return o.String("data", "token") != "" })
	if err != nil {
		return nil, err
	}
	return base64.StdEncoding.DecodeString(o.String("data", "token"))
}

// kubeconfig writes a kubeconfig with a token and returns its path.
func (a *accounts) kubeconfig(name string, token []byte) (string, error) {
	path := filepath.Join(a.dir, name+".kubeconfig")
	return path, os.WriteFile(path, fixture.Kubeconfig(a.cluster.URL, a.cluster.CA(), token), 0o600)
}

// await waits until the response to a list of ClientMounts with the token has the status.
func (a *accounts) await(ctx context.Context, token []byte, status int) error {
	path, err := a.kubeconfig("probe", token)
	if err != nil {
		return err
	}
	client, err := lab.NewClient(path)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return wait.For(ctx, fmt.Sprintf("status %d for a token", status), func() (bool, error) {
		_, err := client.Do(ctx, http.MethodGet, lab.Path("ClientMount", "default", ""), "", nil)
		got := http.StatusOK
		if status, ok := asStatus(err); ok {
			got = status
		} else if err != nil {
			return false, err
		}
		return got == status, nil
	})
}

// create creates an account with these rights, and returns a token of it.
func (a *accounts) create(ctx context.Context, account product.Account, rules ...any) ([]byte, error) {
	for _, o := range []lab.Object{
		{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": map[string]any{"name": account.Name, "namespace": account.Namespace}},
		fixture.Role(account.Name, rules),
		fixture.Binding(account.Name, account.Name, account.Namespace, account.Name),
	} {
		if _, err := a.cluster.Apply(ctx, o); err != nil {
			return nil, err
		}
	}
	token, err := a.token(ctx, account)
	if err != nil {
		return nil, err
	}
	return token, a.await(ctx, token, http.StatusOK)
}
