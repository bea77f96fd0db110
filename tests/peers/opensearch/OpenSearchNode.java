import static org.codelibs.opensearch.runner.OpenSearchRunner.newConfigs;

import org.codelibs.opensearch.runner.OpenSearchRunner;

/**
 * One OpenSearch node on loopback: {@code OpenSearchNode PORT FOLDER [NAME=VALUE ...]}, the rest being settings of
 * the node.
 */
public final class OpenSearchNode {
    public static void main(final String[] arguments) throws Exception {
        final OpenSearchRunner runner = new OpenSearchRunner();
        runner.onBuild((number, settings) -> {
            settings.put("discovery.type", "single-node");
            settings.put("http.port", arguments[0]);
            settings.put("network.host", "127.0.0.1");
            settings.put("cluster.routing.allocation.disk.threshold_enabled", "false");
            for (int at = 2; at < arguments.length; at++) {
                final String[] pair = arguments[at].split("=", 2);
                settings.put(pair[0], pair[1]);
            }
        });
        // Without its logger the runner takes itself for a command line tool and closes at once.
        runner.build(newConfigs().clusterName("weir-tests").numOfNode(1).basePath(arguments[1]).useLogger());
        runner.ensureYellow();
        System.out.println("ready");
        Thread.currentThread().join();
    }
}
