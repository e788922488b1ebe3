package main

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	quota "k8s.io/apiserver/pkg/quota/v1/generic"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/scale"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller"
	"k8s.io/kubernetes/pkg/controller/certificates/rootcacertpublisher"
	"k8s.io/kubernetes/pkg/controller/cronjob"
	"k8s.io/kubernetes/pkg/controller/daemon"
	"k8s.io/kubernetes/pkg/controller/deployment"
	"k8s.io/kubernetes/pkg/controller/disruption"
	"k8s.io/kubernetes/pkg/controller/garbagecollector"
	"k8s.io/kubernetes/pkg/controller/job"
	"k8s.io/kubernetes/pkg/controller/namespace"
	"k8s.io/kubernetes/pkg/controller/replicaset"
	"k8s.io/kubernetes/pkg/controller/replication"
	"k8s.io/kubernetes/pkg/controller/resourcequota"
	"k8s.io/kubernetes/pkg/controller/serviceaccount"
	"k8s.io/kubernetes/pkg/controller/statefulset"
	quotainstall "k8s.io/kubernetes/pkg/quota/v1/install"
)

func (c *cluster) workloads(ctx context.Context) ([]loop, error) {
	apps, core := c.informers.Apps().V1(), c.informers.Core().V1()
	deployments, err := deployment.NewDeploymentController(ctx, apps.Deployments(), apps.ReplicaSets(), core.Pods(),
		c.client)
	if err != nil {
		return nil, fmt.Errorf("making the controller of Deployments: %w", err)
	}
	daemons, err := daemon.NewDaemonSetsController(ctx, apps.DaemonSets(), apps.ControllerRevisions(), core.Pods(),
		core.Nodes(), c.client,
		flowcontrol.NewBackOff(time.Second, 15*time.Minute))
	if err != nil {
		return nil, fmt.Errorf("making the controller of DaemonSets: %w", err)
	}
	sets := replicaset.NewReplicaSetController(ctx, apps.ReplicaSets(), core.Pods(), c.client, replicaset.BurstReplicas)
	stateful := statefulset.NewStatefulSetController(ctx, core.Pods(), apps.StatefulSets(),
		core.PersistentVolumeClaims(), apps.ControllerRevisions(), c.client)
	old := replication.NewReplicationManager(ctx, core.Pods(), core.ReplicationControllers(), c.client,
		replication.BurstReplicas)
	return []loop{
		func(ctx context.Context) { deployments.Run(ctx, 5) },
		func(ctx context.Context) { daemons.Run(ctx, 2) },
		func(ctx context.Context) { sets.Run(ctx, 5) },
		func(ctx context.Context) { stateful.Run(ctx, 5) },
		func(ctx context.Context) { old.Run(ctx, 5) },
	}, nil
}

func (c *cluster) batch(ctx context.Context) ([]loop, error) {
	batch := c.informers.Batch().V1()
	// The two informers that are nil belong to a feature gate that is off by default.
	jobs, err := job.NewController(ctx, c.client, c.informers.Core().V1().Pods(), batch.Jobs(), nil, nil)
	if err != nil {
		return nil, fmt.Errorf("making the controller of Jobs: %w", err)
	}
	crons, err := cronjob.NewControllerV2(ctx, batch.Jobs(), batch.CronJobs(), c.client)
	if err != nil {
		return nil, fmt.Errorf("making the controller of CronJobs: %w", err)
	}
	return []loop{
		func(ctx context.Context) { jobs.Run(ctx, 5) },
		func(ctx context.Context) { crons.Run(ctx, 5) },
	}, nil
}

func (c *cluster) namespaces(ctx context.Context) ([]loop, error) {
	core := c.informers.Core().V1()
	accounts, err := serviceaccount.NewServiceAccountsController(klog.FromContext(ctx), core.ServiceAccounts(),
		core.Namespaces(), c.client,
		serviceaccount.DefaultServiceAccountsControllerOptions())
	if err != nil {
		return nil, fmt.Errorf("making the controller of service accounts: %w", err)
	}
	publisher, err := rootcacertpublisher.NewPublisher(core.ConfigMaps(), core.Namespaces(), c.client, c.rootCA)
	if err != nil {
		return nil, fmt.Errorf("making the publisher of the CA: %w", err)
	}
	namespaces := namespace.NewNamespaceController(ctx, c.client, c.metadata,
		c.discovery.ServerPreferredNamespacedResources, core.Namespaces(),
		5*time.Minute, corev1.FinalizerKubernetes)
	return []loop{
		func(ctx context.Context) { accounts.Run(ctx, 1) },
		func(ctx context.Context) { publisher.Run(ctx, 1) },
		func(ctx context.Context) { namespaces.Run(ctx, 10) },
	}, nil
}

func (c *cluster) disruption(ctx context.Context) ([]loop, error) {
	scales, err := scale.NewForConfig(c.config, c.mapper, dynamic.LegacyAPIPathResolverFunc,
		scale.NewDiscoveryScaleKindResolver(c.discovery))
	if err != nil {
		return nil, fmt.Errorf("making a client of scales: %w", err)
	}
	apps, core := c.informers.Apps().V1(), c.informers.Core().V1()
	budgets := disruption.NewDisruptionController(ctx, core.Pods(), c.informers.Policy().V1().PodDisruptionBudgets(),
		core.ReplicationControllers(),
		apps.ReplicaSets(), apps.Deployments(), apps.StatefulSets(), c.client, c.mapper, scales, c.discovery)
	return []loop{func(ctx context.Context) { budgets.Run(ctx, 1) }}, nil
}

func (c *cluster) quotas(ctx context.Context) ([]loop, error) {
	configuration, err := quotainstall.NewQuotaConfigurationForControllers(
		quota.ListerFuncForResourceFunc(c.informers.ForResource), c.informers)
	if err != nil {
		return nil, fmt.Errorf("configuring quotas: %w", err)
	}
	quotas, err := resourcequota.NewController(ctx, &resourcequota.ControllerOptions{
		QuotaClient:               c.client.CoreV1(),
		ResourceQuotaInformer:     c.informers.Core().V1().ResourceQuotas(),
		ResyncPeriod:              controller.StaticResyncPeriodFunc(5 * time.Minute),
		InformerFactory:           c.all,
		ReplenishmentResyncPeriod: controller.StaticResyncPeriodFunc(resync),
		DiscoveryFunc:             c.discovery.ServerPreferredNamespacedResources,
		IgnoredResourcesFunc:      configuration.IgnoredResources,
		InformersStarted:          c.started,
		Registry:                  quota.NewRegistry(configuration.Evaluators()),
		UpdateFilter:              quotainstall.DefaultUpdateFilter(),
	})
	if err != nil {
		return nil, fmt.Errorf("making the controller of quotas: %w", err)
	}
	return []loop{
		func(ctx context.Context) { quotas.Run(ctx, 5) },
		func(ctx context.Context) { quotas.Sync(ctx, c.discovery.ServerPreferredNamespacedResources, relearn) },
	}, nil
}

func (c *cluster) garbage(ctx context.Context) ([]loop, error) {
	graph := garbagecollector.NewDependencyGraphBuilder(ctx, c.metadata, c.mapper,
		garbagecollector.DefaultIgnoredResources(), c.all, c.started)
	collector, err := garbagecollector.NewComposedGarbageCollector(ctx, c.client, c.metadata, c.mapper, graph)
	if err != nil {
		return nil, fmt.Errorf("making the garbage collector: %w", err)
	}
	return []loop{
		func(ctx context.Context) { collector.Run(ctx, 20, 30*time.Second) },
		func(ctx context.Context) { collector.Sync(ctx, c.discovery, relearn) },
	}, nil
}
