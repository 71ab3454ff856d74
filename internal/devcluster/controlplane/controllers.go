package controlplane

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/restmapper"
	"k8s.io/controller-manager/pkg/informerfactory"
	"k8s.io/klog/v2"
	rootca "k8s.io/kubernetes/pkg/controller/certificates/rootcacertpublisher"
	"k8s.io/kubernetes/pkg/controller/garbagecollector"
	namespaces "k8s.io/kubernetes/pkg/controller/namespace"
	accounts "k8s.io/kubernetes/pkg/controller/serviceaccount"
	"k8s.io/kubernetes/pkg/serviceaccount"
)

// startControllers starts the controllers that a cluster of custom resources needs:
// tokens of account secrets, default accounts, the root certificate in ConfigMaps,
// deletion of namespaces with their objects, garbage collection by owner. They stop
// when ctx is done.
func startControllers(ctx context.Context, c Config, clients kubernetes.Interface) error {
	logger := klog.FromContext(ctx)
	const resync = 10 * time.Minute
	shared := informers.NewSharedInformerFactory(clients, resync)
	core := shared.Core().V1()

	generator, err := serviceaccount.JWTTokenGenerator(serviceaccount.LegacyIssuer, c.Signer)
	if err != nil {
		return err
	}
	tokens, err := accounts.NewTokensController(logger, core.ServiceAccounts(), core.Secrets(), clients,
		accounts.TokensControllerOptions{TokenGenerator: generator, RootCA: c.CA})
	if err != nil {
		return err
	}
	defaults, err := accounts.NewServiceAccountsController(logger, core.ServiceAccounts(), core.Namespaces(), clients,
		accounts.DefaultServiceAccountsControllerOptions())
	if err != nil {
		return err
	}
	publisher, err := rootca.NewPublisher(core.ConfigMaps(), core.Namespaces(), clients, c.CA)
	if err != nil {
		return err
	}
	objects, err := metadata.NewForConfig(c.Admin)
	if err != nil {
		return err
	}
	spaces := namespaces.NewNamespaceController(ctx, clients, objects, clients.Discovery().ServerPreferredNamespacedResources,
		core.Namespaces(), 5*time.Minute, corev1.FinalizerKubernetes)

	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(clients.Discovery()))
	metadataShared := metadatainformer.NewSharedInformerFactory(objects, resync)
	started := make(chan struct{})
	collector, err := garbagecollector.NewGarbageCollector(ctx, clients, objects, mapper, garbagecollector.DefaultIgnoredResources(),
		informerfactory.NewInformerFactory(shared, metadataShared), started)
	if err != nil {
		return err
	}

	shared.Start(ctx.Done())
	metadataShared.Start(ctx.Done())
	close(started)
	go tokens.Run(ctx, 2)
	go defaults.Run(ctx, 1)
	go publisher.Run(ctx, 1)
	go spaces.Run(ctx, 2)
	go collector.Run(ctx, 2, 30*time.Second)
	go collector.Sync(ctx, clients.Discovery(), 10*time.Second)
	return nil
}
