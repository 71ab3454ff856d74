package provision

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/compute-daemons/compute-daemons/internal/devcluster/apiclient"
	"github.com/compute-daemons/compute-daemons/internal/devcluster/manifests"
	"github.com/compute-daemons/compute-daemons/internal/devcluster/statedir"
)

// Daemon is a program that gets credentials, in the directory Name of the cluster
// directory.
type Daemon struct {
	Name      string
	Namespace string
	Account   string // also the name of the token secret
}

// Daemons are the daemons with an account in manifests.Accounts.
var Daemons = []Daemon{
	{"clientmountd", "nnf-system", "nnf-clientmount"},
	{"nnf-dm", "nnf-dm-system", "nnf-dm-daemon"},
}

// DaemonNamed returns the daemon, or an error with the valid names.
func DaemonNamed(name string) (Daemon, error) {
	for _, d := range Daemons {
		if d.Name == name {
			return d, nil
		}
	}
	return Daemon{}, fmt.Errorf("unknown daemon %q: use %s or %s", name, Daemons[0].Name, Daemons[1].Name)
}

func (d Daemon) secret() apiclient.Target {
	return apiclient.Target{Resource: "secrets", Namespace: d.Namespace, Name: d.Account}
}

// WriteCredentials waits for the token of the account and writes service.token,
// service.cert and kubeconfig into the directory of the daemon below dir.
func (d Daemon) WriteCredentials(ctx context.Context, client *apiclient.Client, admin *rest.Config, dir string) error {
	token, err := d.token(ctx, client)
	if err != nil {
		return fmt.Errorf("token of %s: %w", d.Account, err)
	}
	own := filepath.Join(dir, d.Name)
	if err := statedir.WriteFile(filepath.Join(own, "service.cert"), admin.CAData); err != nil {
		return err
	}
	if err := statedir.WriteFile(filepath.Join(own, "service.token"), token); err != nil {
		return err
	}
	return writeKubeconfig(filepath.Join(own, "kubeconfig"), admin, clientcmdapi.AuthInfo{Token: string(token)})
}

// Rotate replaces the token of the account and rewrites the files of the daemon. The
// server caches valid tokens for at most 10 s and then rejects the old one.
func (d Daemon) Rotate(ctx context.Context, client *apiclient.Client, admin *rest.Config, dir string) error {
	if _, err := client.Delete(ctx, d.secret()); err != nil {
		return err
	}
	secret, err := d.manifest()
	if err != nil {
		return err
	}
	if _, err := client.Apply(ctx, secret); err != nil {
		return err
	}
	return d.WriteCredentials(ctx, client, admin, dir)
}

func (d Daemon) manifest() (*unstructured.Unstructured, error) {
	accounts, err := manifests.Accounts()
	if err != nil {
		return nil, err
	}
	for _, object := range accounts {
		if object.GetKind() == "Secret" && object.GetNamespace() == d.Namespace && object.GetName() == d.Account {
			return object, nil
		}
	}
	return nil, errors.New("no token secret for " + d.Account)
}

// token waits until the control plane has filled the secret.
func (d Daemon) token(ctx context.Context, client *apiclient.Client) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 20*time.Second, errors.New("timed out waiting for a token in the secret"))
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		secret, err := client.Get(ctx, d.secret())
		if err != nil {
			return nil, err
		}
		if text, found := apiclient.Field(secret.Object, "data.token"); found {
			return base64.StdEncoding.DecodeString(text)
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-tick.C:
		}
	}
}
