// What a Java program asks of its kernel: threads, a collector that moves objects while they run, a fault that is an
// exception, a child.
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

public class Threads {
  static long fill(int seed) {
    long sum = 0;
    List<byte[]> kept = new ArrayList<>();
    for (int i = 0; i < 20000; ++i) {
      byte[] block = new byte[1000];
      block[i % 1000] = (byte) (i + seed);
      sum += block[i % 1000];
      if (i % 100 == 0) kept.add(block);
    }
    return sum + kept.size();
  }

  static int depth(int n) {
    return depth(n + 1) + 1;
  }

  public static void main(String[] arguments) throws Exception {
    ExecutorService pool = Executors.newFixedThreadPool(4);
    List<Future<Long>> parts = new ArrayList<>();
    for (int t = 0; t < 4; ++t) {
      final int seed = t;
      parts.add(pool.submit(() -> fill(seed)));
    }
    long sum = 0;
    for (Future<Long> part : parts) sum += part.get();
    pool.shutdown();
    System.out.println("sum " + sum);
    System.gc();
    try {
      Object nothing = arguments.length > 5 ? "" : null;
      System.out.println(nothing.toString());
    } catch (NullPointerException exception) {
      System.out.println("null");
    }
    try {
      depth(0);
    } catch (StackOverflowError error) {
      System.out.println("stack");
    }
    Process child = new ProcessBuilder("/bin/echo", "child").inheritIO().start();
    System.out.println("status " + child.waitFor());
  }
}
