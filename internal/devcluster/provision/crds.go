package provision

import (
	"context"
	"errors"
	"fmt"
	"time"

	apiext "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextclient "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset/typed/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/retry"
)

// serveLimit limits the wait for all definitions, which usually takes 1 to 3 s.
const serveLimit = time.Minute

func installCRDs(ctx context.Context, admin *rest.Config, crds []*apiext.CustomResourceDefinition) error {
	clients, err := apiextclient.NewForConfig(admin)
	if err != nil {
		return err
	}
	for _, crd := range crds {
		if err := putCRD(ctx, clients.CustomResourceDefinitions(), crd); err != nil {
			return fmt.Errorf("definition %s: %w", crd.Name, err)
		}
	}
	if err := waitAllServed(ctx, clients.RESTClient(), crds); err != nil {
		return err
	}
	for _, crd := range crds {
		if err := backdate(ctx, clients.CustomResourceDefinitions(), crd.Name); err != nil {
			return fmt.Errorf("definition %s: %w", crd.Name, err)
		}
	}
	return nil
}

// AwaitDefinitions waits until the API server serves all definitions that the cluster has.
func AwaitDefinitions(ctx context.Context, admin *rest.Config) error {
	clients, err := apiextclient.NewForConfig(admin)
	if err != nil {
		return err
	}
	list, err := clients.CustomResourceDefinitions().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	var crds []*apiext.CustomResourceDefinition
	for i := range list.Items {
		crds = append(crds, &list.Items[i])
	}
	return waitAllServed(ctx, clients.RESTClient(), crds)
}

func waitAllServed(ctx context.Context, client rest.Interface, crds []*apiext.CustomResourceDefinition) error {
	ctx, cancel := context.WithTimeoutCause(ctx, serveLimit, errors.New("timed out waiting for the API server to serve it"))
	defer cancel()
	for _, crd := range crds {
		for _, version := range crd.Spec.Versions {
			if !version.Served {
				continue
			}
			if err := waitServed(ctx, client, crd.Spec.Group, version.Name, crd.Spec.Names.Plural); err != nil {
				return fmt.Errorf("definition %s %s: %w", crd.Name, version.Name, err)
			}
		}
	}
	return nil
}

// putCRD creates or replaces a definition, so that no fields of an earlier run remain.
func putCRD(ctx context.Context, to apiextclient.CustomResourceDefinitionInterface, crd *apiext.CustomResourceDefinition) error {
	_, err := to.Create(ctx, crd, metav1.CreateOptions{FieldValidation: metav1.FieldValidationStrict})
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	old, err := to.Get(ctx, crd.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	replacement := crd.DeepCopy()
	replacement.ResourceVersion = old.ResourceVersion
	_, err = to.Update(ctx, replacement, metav1.UpdateOptions{FieldValidation: metav1.FieldValidationStrict})
	return err
}

// waitServed requests the resource itself, because the conditions of the definition
// are true slightly before the server accepts requests.
func waitServed(ctx context.Context, client rest.Interface, group, version, plural string) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := client.Get().AbsPath("/apis", group, version, plural).Param("limit", "1").Do(ctx).Error()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}

// backdate moves the time of the Established condition into the past. The server
// delays each create while the condition is younger than 2 s, because other API
// servers may not know the definition yet. This cluster has no other servers, and the
// delay would slow down every test.
func backdate(ctx context.Context, to apiextclient.CustomResourceDefinitionInterface, name string) error {
	return retry.RetryOnConflict(retry.DefaultRetry, func() error {
		crd, err := to.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for i := range crd.Status.Conditions {
			if c := &crd.Status.Conditions[i]; c.Type == apiext.Established && time.Since(c.LastTransitionTime.Time) < time.Minute {
				c.LastTransitionTime = metav1.NewTime(time.Now().Add(-time.Minute))
				_, err := to.UpdateStatus(ctx, crd, metav1.UpdateOptions{})
				return err
			}
		}
		return nil
	})
}
