// Sends callbacks with the JDK's HttpClient, over HTTP/1.1 or as the client comes: then it offers
// HTTP/2 with every request. Arguments: URL, count, "1.1" or "as it comes". Prints how many were
// answered 200, and how many were not.

import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

public class Push {
  public static void main(String[] arguments) throws Exception {
    URI uri = URI.create(arguments[0]);
    int count = Integer.parseInt(arguments[1]);
    HttpClient.Builder builder = HttpClient.newBuilder();
    if (arguments[2].equals("1.1")) {
      builder.version(HttpClient.Version.HTTP_1_1);
    }
    HttpClient client = builder.build();
    int accepted = 0;
    for (int number = 0; number < count; number++) {
      String body =
          String.format(
              "{\"deviceId\": \"java\", \"commandId\": \"%s-%d\","
                  + " \"result\": {\"resultCode\": \"SENT\"}}",
              arguments[2], number);
      HttpRequest request =
          HttpRequest.newBuilder(uri)
              .header("Content-Type", "application/json")
              .POST(HttpRequest.BodyPublishers.ofString(body))
              .build();
      if (client.send(request, HttpResponse.BodyHandlers.ofString()).statusCode() == 200) {
        accepted++;
      }
    }
    System.out.println(accepted + " " + (count - accepted));
  }
}
